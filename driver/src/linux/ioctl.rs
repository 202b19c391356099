//! The few device controls that no safe wrapper offers: loop devices, and freezing of file systems.
//!
//! The numbers and layouts are those of `linux/loop.h` and `linux/fs.h`.
#![expect(
    unsafe_code,
    reason = "a device control is a number and a pointer; each call here passes the structure that its number asks for"
)]

use std::ffi::c_void;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Result;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl};

const LOOP_CLR_FD: Opcode = 0x4C01;
const LOOP_SET_STATUS64: Opcode = 0x4C04;
const LOOP_GET_STATUS64: Opcode = 0x4C05;
const LOOP_SET_CAPACITY: Opcode = 0x4C07;
const LOOP_CONFIGURE: Opcode = 0x4C0A;
const LOOP_CTL_GET_FREE: Opcode = 0x4C82;
const FIFREEZE: Opcode = 0xC004_5877;
const FITHAW: Opcode = 0xC004_5878;

/// The device takes no writes.
const LO_FLAGS_READ_ONLY: u32 = 1;
/// The device lets go of its file when nobody has it open any more.
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

const NO_INFO: LoopInfo = LoopInfo {
    device: 0,
    inode: 0,
    rdevice: 0,
    offset: 0,
    size_limit: 0,
    number: 0,
    encrypt_type: 0,
    encrypt_key_size: 0,
    flags: 0,
    file_name: [0; 64],
    crypt_name: [0; 64],
    encrypt_key: [0; 32],
    init: [0; 2],
};

/// A control without an argument; answers a number.
struct Plain(Opcode);

// SAFETY: the pointer is null, and every control called so reads no argument.
unsafe impl Ioctl for Plain {
    type Output = i32;

    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        self.0
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::null_mut()
    }

    unsafe fn output_from_ptr(output: IoctlOutput, _: *mut c_void) -> Result<i32> {
        Ok(output)
    }
}

/// A control that reads or writes a structure.
struct With<'a, T>(Opcode, &'a mut T);

// SAFETY: the pointer is to the structure that the control's number asks for, which lives as long as the call.
unsafe impl<T> Ioctl for With<'_, T> {
    type Output = ();

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.0
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::from_mut(self.1).cast()
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut c_void) -> Result<()> {
        Ok(())
    }
}

/// The number of a loop device that is free; asked of `/dev/loop-control`.
pub(super) fn free_loop(control: impl AsFd) -> Result<i32> {
    // SAFETY: the control takes no argument.
    unsafe { ioctl(control, Plain(LOOP_CTL_GET_FREE)) }
}

/// Puts a file behind a loop device. `BUSY` if there is one.
pub(super) fn set_up(device: impl AsFd, file: impl AsFd, read_only: bool) -> Result<()> {
    let mut config = LoopConfig {
        fd: u32::try_from(file.as_fd().as_raw_fd()).unwrap_or(u32::MAX),
        block_size: 0,
        info: LoopInfo {
            flags: if read_only { LO_FLAGS_READ_ONLY } else { 0 },
            ..NO_INFO
        },
        reserved: [0; 8],
    };
    // SAFETY: LOOP_CONFIGURE reads a loop_config.
    unsafe { ioctl(device, With(LOOP_CONFIGURE, &mut config)) }
}

/// Lets a loop device go of its file, now or when nobody has it open any more.
pub(super) fn let_go(device: impl AsFd) -> Result<()> {
    // SAFETY: the control takes no argument.
    unsafe { ioctl(device, Plain(LOOP_CLR_FD)) }.map(drop)
}

/// Takes back that a loop device lets go of its file by itself. `NXIO` if it has let go.
pub(super) fn hold_on(device: impl AsFd) -> Result<()> {
    let device = device.as_fd();
    let mut info = NO_INFO;
    // SAFETY: LOOP_GET_STATUS64 fills a loop_info64.
    unsafe { ioctl(device, With(LOOP_GET_STATUS64, &mut info)) }?;
    info.flags &= !LO_FLAGS_AUTOCLEAR;
    // SAFETY: LOOP_SET_STATUS64 reads a loop_info64.
    unsafe { ioctl(device, With(LOOP_SET_STATUS64, &mut info)) }
}

/// Makes a loop device look again how large its file is.
pub(super) fn look_again(device: impl AsFd) -> Result<()> {
    // SAFETY: the control takes no argument.
    unsafe { ioctl(device, Plain(LOOP_SET_CAPACITY)) }.map(drop)
}

/// Writes out a mounted file system and holds up everyone who writes to it. `BUSY` if it is frozen already.
pub(super) fn freeze(directory: impl AsFd) -> Result<()> {
    // SAFETY: the control reads no argument.
    unsafe { ioctl(directory, Plain(FIFREEZE)) }.map(drop)
}

/// Lets writing go on. `INVAL` if the file system is not frozen.
pub(super) fn thaw(directory: impl AsFd) -> Result<()> {
    // SAFETY: the control reads no argument.
    unsafe { ioctl(directory, Plain(FITHAW)) }.map(drop)
}

#[cfg(test)]
mod tests {
    use super::{LoopConfig, LoopInfo};

    #[test]
    fn structures_are_as_large_as_the_kernels() {
        assert_eq!(size_of::<LoopInfo>(), 232);
        assert_eq!(size_of::<LoopConfig>(), 304);
    }
}
