//! The checksum of a manifest: detects truncation and damage, not forgery.

/// Mixes in eight bytes per step. The result does not depend on how the bytes are split into calls.
#[derive(Debug, Default)]
pub(super) struct Checksum {
    state: u64,
    length: u64,
    tail: [u8; 8],
    filled: usize,
}

impl Checksum {
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len() as u64;
        if self.filled > 0 {
            let taken = bytes.len().min(8 - self.filled);
            self.tail[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled < 8 {
                return;
            }
            self.step(u64::from_le_bytes(self.tail));
        }
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            let mut fixed = [0; 8];
            fixed.copy_from_slice(word);
            self.step(u64::from_le_bytes(fixed));
        }
        let rest = words.remainder();
        self.tail[..rest.len()].copy_from_slice(rest);
        self.filled = rest.len();
    }

    fn step(&mut self, word: u64) {
        self.state = (self.state ^ word)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29);
    }

    pub(super) fn value(&self) -> u64 {
        let mut last = Self {
            tail: self.tail,
            ..Self::default()
        };
        last.state = self.state;
        last.tail[self.filled..].fill(0);
        last.step(u64::from_le_bytes(last.tail));
        last.step(self.length ^ 0x6776_725f_6d61_6e69);
        last.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_does_not_depend_on_how_the_bytes_are_split() {
        let bytes: Vec<u8> = (0..=255).collect();
        let mut whole = Checksum::default();
        whole.update(&bytes);
        for cut in 0..20 {
            let mut parts = Checksum::default();
            for part in bytes.chunks(cut + 1) {
                parts.update(part);
            }
            assert_eq!(parts.value(), whole.value(), "{cut}");
        }
        let mut shorter = Checksum::default();
        shorter.update(&bytes[..255]);
        assert_ne!(shorter.value(), whole.value());
    }
}
