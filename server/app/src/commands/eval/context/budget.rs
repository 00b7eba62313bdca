//! How much of a context may be kept.

use std::fmt;
use std::str::FromStr;

/// Context tokens, or a share of those that keeping everything takes.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub(super) enum Budget {
    Tokens(u32),
    /// Above 0 and below 1.
    Share(f32),
}

impl Budget {
    /// In tokens, where keeping everything takes `all`.
    pub(super) fn tokens(self, all: u32) -> u32 {
        match self {
            Self::Tokens(tokens) => tokens,
            Self::Share(share) => (f64::from(all) * f64::from(share)) as u32,
        }
    }

    /// Tokens, or percent to two digits.
    pub(super) fn value(self) -> f64 {
        match self {
            Self::Tokens(tokens) => f64::from(tokens),
            Self::Share(share) => (f64::from(share) * 1e4).round() / 100.0,
        }
    }

    /// For people.
    pub(super) fn label(self) -> String {
        match self {
            Self::Tokens(tokens) => tokens.to_string(),
            Self::Share(_) => format!("{} %", self.value()),
        }
    }
}

impl From<Budget> for pith_context::Budget {
    fn from(budget: Budget) -> Self {
        match budget {
            Budget::Tokens(tokens) => Self::Tokens(tokens),
            Budget::Share(share) => Self::KeepRatio(share),
        }
    }
}

/// As in JSON: `64`, `0.05`.
impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tokens(tokens) => write!(f, "{tokens}"),
            Self::Share(share) => write!(f, "{share}"),
        }
    }
}

impl FromStr for Budget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(tokens @ 1..) = text.parse() {
            return Ok(Self::Tokens(tokens));
        }
        match text.parse() {
            Ok(share) if share > 0.0 && share < 1.0 => Ok(Self::Share(share)),
            _ => {
                Err("must be a number of tokens, 1 or more, or a share above 0 and below 1"
                    .to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_read_and_written_alike() {
        for text in ["64", "0.05", "0.5", "2048"] {
            assert_eq!(text.parse::<Budget>().unwrap().to_string(), text);
        }
        for text in ["0", "1.5", "-3", "NaN", "x", ""] {
            assert!(text.parse::<Budget>().is_err(), "{text}");
        }
        assert_eq!(Budget::Share(0.05).tokens(2035), 101);
        assert_eq!(Budget::Share(0.05).label(), "5 %");
        assert_eq!(Budget::Share(0.3).value(), 30.0);
    }
}
