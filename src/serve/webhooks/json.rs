//! Reads a few values out of a JSON document that may be cut off at its end.
//!
//! The document is read once, from its first byte to its last; what is not asked for is skipped
//! without being stored. What was found before a mistake or the cut counts.

use std::fmt;

use serde::de::{
    Deserialize as _, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess,
    Visitor,
};

/// The way to a value: keys of objects, and `*` for every element of an array.
pub(super) type Path = &'static [&'static str];

/// What is at the end of a path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// An object begins; its values follow.
    Object,
    /// A string.
    Text(&'a str),
    /// A boolean.
    Flag(bool),
}

/// Calls `take` with the number of the path and the value for whatever is found at the end of one
/// of the `paths` (32 at most), in the order of the document. Returns whether it was whole.
pub(super) fn read(json: &[u8], paths: &[Path], take: &mut dyn FnMut(usize, Found<'_>)) -> bool {
    debug_assert!(paths.len() <= 32, "a path has one bit each");
    let mut document = serde_json::Deserializer::from_slice(json);
    let walk = Walk {
        paths,
        alive: u32::MAX >> (32 - paths.len().clamp(1, 32)),
        depth: 0,
        take,
    };
    walk.deserialize(&mut document).is_ok() && document.end().is_ok()
}

/// The reading of one value.
struct Walk<'w> {
    paths: &'w [Path],
    /// One bit for each path that led here.
    alive: u32,
    depth: usize,
    take: &'w mut dyn FnMut(usize, Found<'_>),
}

/// The reading of a key: which paths go on with it.
struct Key<'w> {
    paths: &'w [Path],
    alive: u32,
    depth: usize,
}

impl Walk<'_> {
    fn found(&mut self, what: &Found<'_>) {
        for (index, path) in self.paths.iter().enumerate() {
            if self.alive & (1 << index) != 0 && path.len() == self.depth {
                let what = match what {
                    Found::Object => Found::Object,
                    Found::Text(text) => Found::Text(text),
                    Found::Flag(flag) => Found::Flag(*flag),
                };
                (self.take)(index, what);
            }
        }
    }
}

fn going_on(paths: &[Path], alive: u32, depth: usize, with: &str) -> u32 {
    let goes_on = |(index, path): (usize, &Path)| {
        let on = alive & (1 << index) != 0 && path.get(depth).is_some_and(|key| *key == with);
        u32::from(on) << index
    };
    paths.iter().enumerate().map(goes_on).sum()
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.alive == 0 {
            IgnoredAny::deserialize(deserializer).map(drop)
        } else {
            deserializer.deserialize_any(self)
        }
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E: Error>(mut self, flag: bool) -> Result<(), E> {
        self.found(&Found::Flag(flag));
        Ok(())
    }

    fn visit_str<E: Error>(mut self, text: &str) -> Result<(), E> {
        self.found(&Found::Text(text));
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.found(&Found::Object);
        let Self {
            paths,
            alive,
            depth,
            take,
        } = self;
        let key = || Key {
            paths,
            alive,
            depth,
        };
        while let Some(alive) = map.next_key_seed(key())? {
            map.next_value_seed(Walk {
                paths,
                alive,
                depth: depth + 1,
                take: &mut *take,
            })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self {
            paths,
            alive,
            depth,
            take,
        } = self;
        let alive = going_on(paths, alive, depth, "*");
        while seq
            .next_element_seed(Walk {
                paths,
                alive,
                depth: depth + 1,
                take: &mut *take,
            })?
            .is_some()
        {}
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = u32;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u32, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = u32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<u32, E> {
        Ok(going_on(self.paths, self.alive, self.depth, key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATHS: [Path; 4] = [&["ref"], &["a", "*"], &["a", "*", "name"], &["ok"]];

    fn found(json: &str) -> (Vec<String>, bool) {
        let mut all = Vec::new();
        let whole = read(json.as_bytes(), &PATHS, &mut |path, found| {
            all.push(format!("{path} {found:?}"));
        });
        (all, whole)
    }

    #[test]
    fn only_what_is_asked_for_is_found() {
        let json = r#"{"x":{"ref":"no"},"ref":"yes","a":[{"name":"one"},2,["name"],{"name":null}],
                       "ok":true,"a2":1.5}"#;
        let expected = [
            "0 Text(\"yes\")",
            "1 Object",
            "2 Text(\"one\")",
            "1 Object",
            "3 Flag(true)",
        ];
        assert_eq!(found(json), (expected.map(str::to_owned).to_vec(), true));
    }

    #[test]
    fn what_comes_before_the_cut_counts() {
        let json = r#"{"ref":"yes","a":[{"name":"one"},{"name":"tw"#;
        let (all, whole) = found(json);
        assert_eq!(
            all,
            ["0 Text(\"yes\")", "1 Object", "2 Text(\"one\")", "1 Object"]
        );
        assert!(!whole);
        for cut in 0..json.len() {
            assert!(!found(&json[..cut]).1, "{cut}");
        }
    }

    #[test]
    fn deep_and_odd_documents_end() {
        for json in ["", "1", "[]", "null", "\"ref\"", "{}x", "{\"ref\"}"] {
            assert_eq!(found(json).0, [""; 0], "{json}");
        }
        assert!(!found(&"[".repeat(1 << 20)).1);
        assert!(!found(&"{\"a\":".repeat(1 << 18)).1);
        let wide = format!("{{\"x\":{}1{}}}", "[".repeat(100), "]".repeat(100));
        assert!(found(&wide).1);
    }
}
