//! Wire contracts of pith: generated types, clients and servers, and the file descriptor set.
//!
//! The contracts themselves, with the unit, default and range of every field, are the `.proto` files beside this
//! crate. No logic lives here.
#![forbid(unsafe_code)]

/// `pith.v1`: the native API.
pub mod v1 {
    tonic::include_proto!("pith.v1");
}

/// Encoded `FileDescriptorSet` of every contract, comments included, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pith.v1.bin"));

#[cfg(test)]
mod tests;
