//! Any sequence of operations does to the store what it does to a map.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    /// Tenant, document, text, whether it comes as a page.
    Put(u8, u8, String, bool),
    Delete(u8, u8),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let text = prop::collection::vec("[a-d]{3,4}", 0..12).prop_map(|words| words.join(" "));
    let put = |(tenant, id, text, page)| Step::Put(tenant, id, text, page);
    let step = prop_oneof![
        6 => (0..2_u8, 0..4_u8, text, any::<bool>()).prop_map(put),
        3 => (0..2_u8, 0..4_u8).prop_map(|(tenant, id)| Step::Delete(tenant, id)),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..24)
}

/// Versions of each document, oldest first.
type Model = BTreeMap<(u8, u8), Vec<(u64, String, bool)>>;

/// What `text` is stored as; there are no empty pages.
fn content(text: &str, as_page: bool) -> Content {
    if as_page && !text.is_empty() { page(text, 6) } else { words(text, 6) }
}

fn compare(store: &Store, model: &Model) {
    for tenant in 0..2_u8 {
        let name = tenant.to_string();
        let of_tenant = || model.iter().filter(move |((t, _), _)| *t == tenant);
        let listed: Vec<(String, u64)> = store
            .list(&name, "", None, 100)
            .unwrap()
            .documents
            .into_iter()
            .map(|version| (version.id, version.version))
            .collect();
        let expected: Vec<(String, u64)> = of_tenant()
            .map(|((_, id), versions)| (id.to_string(), versions.last().unwrap().0))
            .collect();
        assert_eq!(listed, expected);
        for ((_, id), versions) in of_tenant() {
            for (version, text, as_page) in versions {
                let (id, version) = (id.to_string(), Some(*version));
                let stored = store.get(&name, &id, version).unwrap().unwrap();
                let content = content(text, *as_page);
                let original = store.original(&name, &id, version).unwrap().unwrap().1;
                let (bytes, way) = match content.original {
                    None => (content.text.clone().into_bytes(), None),
                    Some(original) => (original.bytes, Some(original.way)),
                };
                assert_eq!((stored.text, stored.way), (content.text, way));
                assert_eq!(original, bytes);
            }
            let before = versions[0].0 - 1;
            assert_eq!(store.get(&name, &id.to_string(), Some(before)).unwrap(), None);
        }
        let mut words: Vec<&str> =
            model.values().flatten().flat_map(|(_, text, _)| text.split(' ')).collect();
        words.sort_unstable();
        words.dedup();
        for word in words.into_iter().filter(|word| !word.is_empty()).take(6) {
            let mut hits = found(store, &name, word);
            hits.sort();
            let term = |word: &str| crate::terms(word).collect::<Vec<_>>();
            let mut expected = Vec::new();
            for ((_, id), versions) in of_tenant() {
                let latest = &versions.last().unwrap().1;
                let same = latest.split(' ').filter(|other| term(other) == term(word));
                expected.extend(same.map(|other| (id.to_string(), other.to_owned())));
            }
            expected.sort();
            assert_eq!(hits, expected, "{word}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_a_map(steps in steps()) {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path());
        let mut model = Model::new();
        for step in steps {
            match step {
                Step::Put(tenant, id, text, as_page) => {
                    let as_page = as_page && !text.is_empty();
                    let content = content(&text, as_page);
                    let put = store.put(&tenant.to_string(), &id.to_string(), &content).unwrap();
                    let versions = model.entry((tenant, id)).or_default();
                    let latest = versions.last().map_or(0, |(version, _, _)| *version);
                    let same = versions.last().is_some_and(|(_, latest, before)| {
                        (latest, *before) == (&text, as_page)
                    });
                    prop_assert_eq!(put.created, !same);
                    if !same {
                        versions.push((latest + 1, text, as_page));
                        let surplus = versions.len().saturating_sub(3);
                        versions.drain(..surplus);
                    }
                    prop_assert_eq!(put.version.version, versions.last().unwrap().0);
                }
                Step::Delete(tenant, id) => {
                    let deleted = store.delete(&tenant.to_string(), &id.to_string()).unwrap();
                    prop_assert_eq!(deleted.is_some(), model.remove(&(tenant, id)).is_some());
                }
                Step::Reopen => {
                    drop(store);
                    store = open(folder.path());
                }
            }
            let census = store.check().unwrap();
            prop_assert_eq!(census.documents, model.len() as u64);
            prop_assert_eq!(census.versions, model.values().map(|v| v.len() as u64).sum::<u64>());
        }
        compare(&store, &model);
        drop(store);
        let store = open(folder.path());
        store.check().unwrap();
        compare(&store, &model);
    }
}
