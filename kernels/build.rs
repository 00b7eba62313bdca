//! Compiles the device's kernels for the host, where that is asked for.

fn main() {
    println!("cargo:rerun-if-changed=cuda");
    #[cfg(feature = "host-device")]
    host_device();
}

/// The `.cu` sources as plain C++, and the fibers that run them.
#[cfg(feature = "host-device")]
fn host_device() {
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .opt_level(2)
        // A sum is what the device makes of it: no contraction beyond what a kernel asks for.
        .flag_if_supported("-ffp-contract=off")
        .flag_if_supported("-Wno-unused-function")
        .flag_if_supported("-Wno-unused-variable")
        .flag_if_supported("-Wno-unknown-pragmas")
        .files(["cuda/host/fibers.cpp", "cuda/host/kernels.cpp"])
        .compile("pith_host_device");
}
