//! What is written is what is read.

use std::collections::{BTreeMap, BTreeSet};

use pith_model::gguf::{Array, Value};
use proptest::prelude::*;

use crate::read_container;
use crate::writer::{Writer, array, code, text};

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u32>().prop_map(Value::U32),
        any::<i32>().prop_map(Value::I32),
        (-1e30f32..1e30).prop_map(Value::F32),
        any::<bool>().prop_map(Value::Bool),
        ".{0,40}".prop_map(Value::String),
        prop::collection::vec(any::<i32>(), 0..20).prop_map(|many| Value::Array(Array::I32(many))),
        prop::collection::vec(".{0,9}", 0..20).prop_map(|many| Value::Array(Array::String(many))),
    ]
}

fn written(writer: Writer, key: &str, value: &Value) -> Writer {
    match value {
        Value::U8(n) => writer.pair(key, code::U8, &[*n]),
        Value::I8(n) => writer.pair(key, code::I8, &n.to_le_bytes()),
        Value::U32(n) => writer.u32(key, *n),
        Value::I32(n) => writer.pair(key, code::I32, &n.to_le_bytes()),
        Value::F32(n) => writer.f32(key, *n),
        Value::Bool(yes) => writer.bool(key, *yes),
        Value::String(said) => writer.str(key, said),
        Value::Array(Array::I32(many)) => writer.i32s(key, many),
        Value::Array(Array::String(many)) => {
            let elements = many.iter().flat_map(|one| text(one)).collect::<Vec<_>>();
            writer.pair(key, code::ARRAY, &array(code::STRING, many.len() as u64, &elements))
        }
        other => unreachable!("{other:?} is not drawn"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn pairs_and_tensors_survive(
        pairs in prop::collection::btree_map("[a-z_.]{1,20}", value(), 0..12),
        names in prop::collection::btree_set("[a-z_.0-9]{1,64}", 0..6),
        rows in 1u64..5,
        log_alignment in 0u32..8,
    ) {
        let pairs: BTreeMap<String, Value> =
            pairs.into_iter().filter(|pair| pair.0 != "general.alignment").collect();
        let names: BTreeSet<String> = names;
        let alignment = 1 << log_alignment;
        let mut writer = Writer { alignment, ..Writer::default() }
            .u32("general.alignment", alignment as u32);
        for (key, value) in &pairs {
            writer = written(writer, key, value);
        }
        for (index, name) in names.iter().enumerate() {
            writer = writer.floats(name, &[3, rows], &vec![index as f32; 3 * rows as usize]);
        }
        let bytes = writer.bytes();
        let gguf = read_container(&bytes).unwrap();
        let read = gguf.metadata.iter().filter(|pair| pair.0 != "general.alignment");
        prop_assert!(read.eq(pairs.iter().map(|(key, value)| (key.as_str(), value))));
        prop_assert!(gguf.tensors.iter().map(|entry| &entry.name).eq(&names));
        for (index, entry) in gguf.tensors.iter().enumerate() {
            prop_assert_eq!((entry.tensor.rows as u64, entry.tensor.cols), (rows, 3));
            let first = entry.offset as usize;
            prop_assert_eq!(&bytes[first..first + 4], &(index as f32).to_le_bytes());
        }
    }
}
