//! The kernels within this library: their sources, and machine code of the cards it was built for.

use super::Capability;

/// A `.cu` file.
#[derive(Debug)]
pub(super) struct Source {
    /// Without its ending.
    pub(super) name: &'static str,
    pub(super) text: &'static str,
}

impl Source {
    /// Whether cards of `capability` are to have it: files named `*_sm90` are written for 9.0 alone.
    pub(super) fn is_for(&self, capability: Capability) -> bool {
        !self.name.ends_with("_sm90") || capability == (9, 0)
    }
}

/// A source compiled when this library was built.
#[derive(Debug)]
pub(super) struct Cubin {
    /// Of the source.
    pub(super) name: &'static str,
    /// `sm_90a`
    pub(super) architecture: &'static str,
    pub(super) bytes: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// What machine code is embedded for: `sm_80`, `sm_89` and `sm_90a`, or nothing where the build had no toolkit.
#[must_use]
pub fn embedded_architectures() -> Vec<&'static str> {
    let mut all: Vec<&str> = CUBINS.iter().map(|cubin| cubin.architecture).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The architecture whose machine code a card of `capability` is given, of those in `embedded`: its own, or the nearest
/// below it of the same major version.
pub(super) fn nearest<'a>(capability: Capability, embedded: &[&'a str]) -> Option<&'a str> {
    let fits = |architecture: &&str| match parse(architecture) {
        Some((at, true)) => at == capability,
        Some((at, false)) => at.0 == capability.0 && at.1 <= capability.1,
        None => false,
    };
    embedded.iter().copied().filter(fits).max_by_key(|architecture| parse(architecture))
}

/// `sm_90a` is (9, 0) and for that alone.
fn parse(architecture: &str) -> Option<(Capability, bool)> {
    let digits = architecture.strip_prefix("sm_")?;
    let plain = digits.trim_end_matches('a');
    let number: u32 = plain.parse().ok()?;
    Some(((number / 10, number % 10), plain != digits))
}

/// What a card of `capability` is compiled for on the spot. Only Hopper has instructions that its successors lack.
pub(super) fn architecture_of(capability: Capability) -> String {
    let (major, minor) = capability;
    let suffix = if capability == (9, 0) { "a" } else { "" };
    format!("sm_{major}{minor}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_there() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/cuda");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".cu") || name.ends_with(".cuh"))
            .collect();
        let sources = SOURCES.iter().map(|source| format!("{}.cu", source.name));
        let mut embedded: Vec<String> =
            sources.chain(HEADERS.iter().map(|(name, _)| (*name).to_owned())).collect();
        files.sort();
        embedded.sort();
        assert_eq!(embedded, files);
    }

    #[test]
    fn all_sources_are_compiled_for_an_architecture_or_none() {
        for architecture in embedded_architectures() {
            let (capability, _) = parse(architecture).unwrap();
            let compiled = CUBINS.iter().filter(|cubin| cubin.architecture == architecture);
            let names: Vec<&str> = compiled.map(|cubin| cubin.name).collect();
            let sources = SOURCES.iter().filter(|source| source.is_for(capability));
            assert_eq!(names, sources.map(|source| source.name).collect::<Vec<_>>());
        }
        for Cubin { name, bytes, .. } in CUBINS {
            assert!(bytes.starts_with(b"\x7fELF"), "{name}");
        }
    }

    #[test]
    fn a_card_gets_the_nearest_machine_code_it_can_run() {
        let all = ["sm_80", "sm_89", "sm_90a"];
        let cases = [
            ((7, 5), None),
            ((8, 0), Some("sm_80")),
            ((8, 6), Some("sm_80")),
            ((8, 9), Some("sm_89")),
            ((9, 0), Some("sm_90a")),
            ((10, 0), None),
            ((12, 0), None),
        ];
        for (capability, wanted) in cases {
            assert_eq!(nearest(capability, &all), wanted, "{capability:?}");
        }
        assert_eq!(nearest((9, 0), &[]), None);
        assert_eq!(architecture_of((9, 0)), "sm_90a");
        assert_eq!(architecture_of((12, 1)), "sm_121");
    }
}
