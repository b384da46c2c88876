//! The table: each measurement next to git's, the ratio, the target, and whether it was met.

use std::fmt;

/// The unit of a measurement.
#[derive(Clone, Copy, Debug)]
pub enum Unit {
    Seconds,
    Bytes,
    Count,
}

/// All lines, in the order of measuring.
#[derive(Default)]
pub struct Report {
    lines: Vec<[String; 6]>,
}

impl Report {
    /// Pairs of (ours, theirs), taken in turns: the ratio is the median of the pairs' ratios.
    pub fn ratio(&mut self, name: &str, unit: Unit, pairs: &[(f64, f64)], target: Option<f64>) {
        let ratio = median(pairs.iter().map(|(ours, theirs)| ours / theirs));
        self.line([
            name.to_owned(),
            unit.show(median(pairs.iter().map(|pair| pair.0))),
            unit.show(median(pairs.iter().map(|pair| pair.1))),
            format!("{ratio:.3}"),
            target.map_or_else(String::new, |target| format!("<= {target}")),
            verdict(ratio, target),
        ]);
    }

    /// Values with a limit of their own: the median.
    pub fn value(&mut self, name: &str, unit: Unit, values: &[f64], target: Option<f64>) {
        let value = median(values.iter().copied());
        self.line([
            name.to_owned(),
            unit.show(value),
            String::new(),
            String::new(),
            target.map_or_else(String::new, |target| format!("<= {}", unit.show(target))),
            verdict(value, target),
        ]);
    }

    /// Shown at once, too: a run takes minutes.
    fn line(&mut self, line: [String; 6]) {
        println!("{}", line.join("  "));
        self.lines.push(line);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["what", "ours", "theirs", "ratio", "target", ""].map(str::to_owned);
        let rule = std::array::from_fn(|_| "---".to_owned());
        for [name, cells @ ..] in [&head, &rule].into_iter().chain(&self.lines) {
            write!(f, "| {name:<56} |")?;
            for cell in cells {
                write!(f, " {cell:>12} |")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Seconds if value < 0.1 => format!("{:.2} ms", value * 1e3),
            Self::Seconds => format!("{value:.2} s"),
            Self::Bytes if value < 1e4 => format!("{value:.0} B"),
            Self::Bytes => format!("{:.2} MB", value / 1e6),
            Self::Count if value.fract() == 0.0 => format!("{value}"),
            Self::Count => format!("{value:.3}"),
        }
    }
}

fn verdict(value: f64, target: Option<f64>) -> String {
    match target {
        None => String::new(),
        Some(target) if value <= target => "met".to_owned(),
        Some(_) => "MISSED".to_owned(),
    }
}

/// The middle one; of an even number, the lower of the two.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) / 2]
}
