//! What is there to compute on a graphics card, and what is missing. None of it is needed: without, the CPU computes.

use pith_kernels::device::DeviceError;
use pith_kernels::device::cuda::{Part, PartKind};

use super::{Check, Status};

/// A check for each part that was looked for.
pub(super) fn checks(parts: &[Part]) -> Vec<Check> {
    let has = |wanted: fn(PartKind) -> bool| {
        parts.iter().any(|part| wanted(part.kind) && part.found.is_ok())
    };
    let card = has(|kind| matches!(kind, PartKind::Card(_)));
    let embedded = has(|kind| kind == PartKind::Cubins);
    parts.iter().map(|part| check(part, card, embedded)).collect()
}

/// `card`: there is one that can be used. `embedded`: there are kernels within this binary.
fn check(part: &Part, card: bool, embedded: bool) -> Check {
    let found = match &part.found {
        Ok(found) => found.as_str(),
        Err(DeviceError::Missing(why)) => return missing(part.kind, why, card, embedded),
        Err(error) => return missing(part.kind, &error.to_string(), card, embedded),
    };
    match part.kind {
        PartKind::Driver if card => Check::new("gpu", format!("driver of {found}")),
        PartKind::Driver => Check::new("gpu", format!("none that the driver of {found} can use"))
            .because(Status::Warn, "without a card the CPU computes"),
        PartKind::Card(ordinal) => Check::new("card", format!("cuda:{ordinal}: {found}")),
        PartKind::Cubins => Check::new("cubins", format!("embedded for {found}")),
        PartKind::Nvrtc => Check::new("nvrtc", found),
        _ => Check::new("cublaslt", found),
    }
}

/// What is missing matters where there is a card that would use it.
fn missing(kind: PartKind, why: &str, card: bool, embedded: bool) -> Check {
    let (name, matters, without) = match kind {
        PartKind::Driver => ("gpu", false, ""),
        PartKind::Card(_) => ("card", true, "it is not used"),
        PartKind::Cubins => ("cubins", false, ""),
        PartKind::Nvrtc if embedded => {
            ("nvrtc", card, "a card that no kernels are embedded for is not used")
        }
        PartKind::Nvrtc => {
            ("nvrtc", card, "without kernels, embedded or compiled, no card is used")
        }
        _ => {
            ("cublaslt", card, "products are computed by kernels of pith's own, which take longer")
        }
    };
    let check = Check::new(name, why);
    if matters { check.because(Status::Warn, without) } else { check }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(kind: PartKind, found: Result<&str, &str>) -> Part {
        let found = found.map(str::to_owned);
        Part { kind, found: found.map_err(|why| DeviceError::Missing(why.to_owned())) }
    }

    #[test]
    fn a_machine_without_a_card_is_in_order() {
        let absent = [PartKind::Driver, PartKind::Cubins, PartKind::Nvrtc, PartKind::Cublaslt];
        let checks = checks(&absent.map(|kind| part(kind, Err("not here"))));
        let names: Vec<&str> = checks.iter().map(|check| check.name).collect();
        assert_eq!(names, ["gpu", "cubins", "nvrtc", "cublaslt"]);
        for check in checks {
            assert_eq!((check.status, check.found.as_str()), (Status::Ok, "not here"));
        }
    }

    #[test]
    fn what_a_card_lacks_is_a_warning() {
        let parts = [
            part(PartKind::Driver, Ok("CUDA 13.0")),
            part(PartKind::Card(0), Ok("A card, 80 GiB")),
            part(PartKind::Cubins, Err("not here")),
            part(PartKind::Nvrtc, Err("not here")),
            part(PartKind::Cublaslt, Err("not here")),
        ];
        let checks = checks(&parts);
        let warned: Vec<&str> = checks
            .iter()
            .filter(|check| check.status == Status::Warn && check.hint.is_some())
            .map(|check| check.name)
            .collect();
        assert_eq!(warned, ["nvrtc", "cublaslt"]);
        assert!(checks[1].found.contains("cuda:0") && checks[1].found.contains("80 GiB"));
    }

    #[test]
    fn a_driver_without_a_card_is_a_warning() {
        let checks = checks(&[part(PartKind::Driver, Ok("CUDA 13.0"))]);
        assert_eq!(checks[0].status, Status::Warn);
    }
}
