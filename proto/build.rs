//! Compiles the contracts with protox, a protobuf compiler in Rust: no `protoc` is needed.

use std::path::PathBuf;

const FILES: [&str; 5] = [
    "pith/v1/context.proto",
    "pith/v1/documents.proto",
    "pith/v1/embeddings.proto",
    "pith/v1/inference.proto",
    "pith/v1/models.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for file in FILES {
        println!("cargo::rerun-if-changed={file}");
    }
    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_imports(true).include_source_info(true);
    for file in FILES {
        compiler.open_file(file)?;
    }
    // The descriptors go out for reflection with their comments, so that a caller can read the contract from a
    // running server.
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("pith.v1.bin");
    std::fs::write(&out, compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure().compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
