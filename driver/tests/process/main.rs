//! `wavetank-driver` as a process: callers on its socket, signals, and what it leaves on the machine.

/// Leaves the test if this user may not mount.
macro_rules! needs_root {
    () => {
        if !rustix::process::geteuid().is_root() {
            assert!(
                std::env::var_os("WAVETANK_ROOT_TESTS").is_none(),
                "these tests were demanded, and need root"
            );
            println!("NOT RUN: loop devices and mounts need root");
            return;
        }
    };
}

mod command;
mod encrypted;
mod hanging;
mod kinds;
mod loop_backend;
mod rig;
mod volume;
