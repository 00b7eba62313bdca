//! Rules that every contract keeps.

use prost::Message as _;
use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet, SourceCodeInfo};

fn files() -> Vec<FileDescriptorProto> {
    let set = FileDescriptorSet::decode(super::FILE_DESCRIPTOR_SET).unwrap();
    set.file.into_iter().filter(|file| file.package().starts_with("pith.")).collect()
}

fn comment<'a>(info: &'a SourceCodeInfo, path: &[i32]) -> &'a str {
    info.location
        .iter()
        .find(|location| location.path == path)
        .map_or("", |location| location.leading_comments())
}

fn check_message(info: &SourceCodeInfo, message: &DescriptorProto, path: &[i32]) {
    if message.options.as_ref().is_some_and(|options| options.map_entry()) {
        return;
    }
    assert!(!comment(info, path).is_empty(), "message {} has no comment", message.name());
    for (index, field) in message.field.iter().enumerate() {
        let text = comment(info, &[path, &[2, index as i32]].concat());
        assert!(!text.is_empty(), "{}.{} has no comment", message.name(), field.name());
    }
    for (index, nested) in message.nested_type.iter().enumerate() {
        check_message(info, nested, &[path, &[3, index as i32]].concat());
    }
}

#[test]
fn everything_is_commented() {
    for file in files() {
        let info = file.source_code_info.clone().unwrap();
        for (index, message) in file.message_type.iter().enumerate() {
            check_message(&info, message, &[4, index as i32]);
        }
        for (index, service) in file.service.iter().enumerate() {
            assert!(!comment(&info, &[6, index as i32]).is_empty(), "{}", service.name());
            for (rpc, method) in service.method.iter().enumerate() {
                assert!(
                    !comment(&info, &[6, index as i32, 2, rpc as i32]).is_empty(),
                    "{}",
                    method.name()
                );
            }
        }
        for (index, kind) in file.enum_type.iter().enumerate() {
            for (value, each) in kind.value.iter().enumerate() {
                assert!(
                    !comment(&info, &[5, index as i32, 2, value as i32]).is_empty(),
                    "{}",
                    each.name()
                );
            }
        }
    }
}

#[test]
fn enum_zero_is_unspecified() {
    let mut seen = 0;
    for file in files() {
        for kind in &file.enum_type {
            let zero = kind.value.iter().find(|value| value.number() == 0).unwrap();
            assert!(zero.name().ends_with("_UNSPECIFIED"), "{}", zero.name());
            seen += 1;
        }
    }
    assert!(seen >= 5);
}
