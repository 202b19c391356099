//! Generates the Rust types, clients and servers, and the descriptor set, from the `.proto` files. Needs no `protoc`.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use protox::Compiler;
use protox::prost_reflect::DynamicMessage;
use tonic_prost_build::Config;

const ROOT: &str = "proto";
const FILES: [&str; 2] = ["csi/v1/csi.proto", "pluginregistration/v1/registration.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={ROOT}");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR for build scripts")?);

    let mut compiler = Compiler::new([ROOT])?;
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_files(FILES)?;
    generate(&compiler)?;

    // The encoded set keeps the values of extension options, which the decoded one drops. Comments stay out of it.
    let encoded = compiler.include_source_info(false).encode_file_descriptor_set();
    fs::write(out.join("descriptors.bin"), encoded)?;
    Ok(())
}

fn generate(compiler: &Compiler) -> Result<(), Box<dyn Error>> {
    let mut config = Config::new();
    config.enable_type_names();
    tonic_prost_build::configure()
        .build_transport(false)
        .generate_default_stubs(true)
        .btree_map(".")
        .skip_debug(messages_with_secrets(compiler)?)
        .compile_fds_with_config(compiler.file_descriptor_set(), config)?;
    Ok(())
}

/// The messages that must not get a derived `Debug`, since it would print their secrets. `src/redact.rs` writes theirs.
fn messages_with_secrets(compiler: &Compiler) -> Result<Vec<String>, Box<dyn Error>> {
    let pool = compiler.descriptor_pool();
    let csi_secret = pool
        .get_extension_by_name("csi.v1.csi_secret")
        .ok_or("csi.proto declares csi_secret")?;
    let carries = |options: &DynamicMessage| options.get_extension(&csi_secret).as_bool().unwrap_or(false);
    Ok(pool
        .all_messages()
        .filter(|message| message.fields().any(|field| carries(&field.options())))
        .map(|message| message.full_name().to_owned())
        .collect())
}
