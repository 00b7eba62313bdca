//! `engine.device`: what a model is computed on, and `context.embedder_device`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Before the number of a card.
const CUDA: &str = "cuda:";
/// Most cards there may be.
const MOST_CARDS: u32 = 64;

/// What is asked for; [`crate::executor`] sees whether it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    /// The first card if there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU, whatever else is there.
    Cpu,
    /// The card of that number, or nothing.
    Cuda(u32),
}

/// What is not the name of a device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not auto, cpu or cuda:N with N from 0 to 63")]
pub struct UnknownDevice(String);

impl FromStr for DeviceChoice {
    type Err = UnknownDevice;

    fn from_str(text: &str) -> Result<Self, UnknownDevice> {
        let unknown = || UnknownDevice(text.chars().take(64).collect());
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            _ => {
                let digits = text.strip_prefix(CUDA).ok_or_else(unknown)?;
                // `+1` is a number to `parse`.
                let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
                let ordinal = digits.parse().ok().filter(|ordinal| plain && *ordinal < MOST_CARDS);
                ordinal.map(Self::Cuda).ok_or_else(unknown)
            }
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "{CUDA}{ordinal}"),
        }
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = UnknownDevice;

    fn try_from(text: String) -> Result<Self, UnknownDevice> {
        text.parse()
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> Self {
        choice.to_string()
    }
}

/// A choice of its own, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct OwnDevice(pub Option<DeviceChoice>);

impl OwnDevice {
    /// Its own, else `other`.
    #[must_use]
    pub fn or(self, other: DeviceChoice) -> DeviceChoice {
        self.0.unwrap_or(other)
    }
}

impl TryFrom<String> for OwnDevice {
    type Error = UnknownDevice;

    fn try_from(text: String) -> Result<Self, UnknownDevice> {
        match text.as_str() {
            "" => Ok(Self(None)),
            text => Ok(Self(Some(text.parse()?))),
        }
    }
}

impl From<OwnDevice> for String {
    fn from(OwnDevice(choice): OwnDevice) -> Self {
        choice.map_or_else(Self::new, |choice| choice.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for choice in [
            DeviceChoice::Auto,
            DeviceChoice::Cpu,
            DeviceChoice::Cuda(0),
            DeviceChoice::Cuda(MOST_CARDS - 1),
        ] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
        }
    }

    #[test]
    fn a_choice_of_its_own_goes_before_another() {
        for (text, chosen) in
            [("", DeviceChoice::Cuda(3)), ("auto", DeviceChoice::Auto), ("cpu", DeviceChoice::Cpu)]
        {
            let own = OwnDevice::try_from(text.to_owned()).unwrap();
            assert_eq!(own.or(DeviceChoice::Cuda(3)), chosen);
            assert_eq!(String::from(own), text);
        }
    }

    #[test]
    fn other_names_are_errors_that_say_so() {
        for text in ["", "gpu", "cuda", "cuda:", "cuda:+1", "cuda:-1", "cuda:64", "CPU", "cuda:1 "]
        {
            let error = text.parse::<DeviceChoice>().unwrap_err();
            assert_eq!(error, UnknownDevice(text.to_owned()));
            assert!(error.to_string().contains("cuda:N"), "{error}");
        }
        assert_eq!(OwnDevice::try_from("gpu".to_owned()), Err(UnknownDevice("gpu".to_owned())));
        let long = "x".repeat(1000).parse::<DeviceChoice>().unwrap_err();
        assert!(long.to_string().len() < 200);
    }
}
