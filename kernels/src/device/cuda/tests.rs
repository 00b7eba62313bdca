//! Tests of what can be told without a card, and of a card (`card`).

use super::*;

#[test]
fn a_card_that_is_not_here_is_an_error_and_no_panic() {
    // No machine has as many, and this one may have none, nor a driver.
    let why = device(4096).unwrap_err();
    assert!(matches!(&why, DeviceError::Missing(why) if !why.is_empty()), "{why}");
    match count() {
        Ok(count) => assert!(count < 4096),
        Err(why) => assert!(matches!(why, DeviceError::Missing(_)), "{why}"),
    }
}

#[test]
fn presence_names_every_part() {
    let parts = presence();
    let found = |kind| parts.iter().find(|part| part.kind == kind).map(|part| &part.found);
    for kind in [PartKind::Driver, PartKind::Cubins, PartKind::Nvrtc, PartKind::Cublaslt] {
        match found(kind).unwrap() {
            Ok(text) => assert!(!text.is_empty(), "{kind:?}"),
            Err(why) => assert!(matches!(why, DeviceError::Missing(_)), "{kind:?}: {why}"),
        }
    }
    let cards = parts.iter().filter(|part| matches!(part.kind, PartKind::Card(_))).count();
    assert_eq!(cards as u32, count().unwrap_or(0));
    assert_eq!(found(PartKind::Cubins).unwrap().is_ok(), !embedded_architectures().is_empty());
}

#[cfg(feature = "card")]
mod card;
