//! The part of `libz-ng-sys` that flate2 calls, carried out by zlib-rs.
//!
//! zlib-ng is built with cmake; Tollgate asks of a machine no more than Rust and a C compiler, so
//! the workspace patches this crate in instead. Only what flate2 names is here.
#![allow(non_camel_case_types, non_snake_case, clippy::missing_safety_doc)]

use core::ffi::{c_char, c_int, c_ulong, c_void};

pub use libz_rs_sys::{
    Bytef, Z_BLOCK, Z_BUF_ERROR, Z_DATA_ERROR, Z_DEFAULT_STRATEGY, Z_DEFLATED, Z_FINISH,
    Z_FULL_FLUSH, Z_MEM_ERROR, Z_NEED_DICT, Z_NO_FLUSH, Z_OK, Z_PARTIAL_FLUSH, Z_STREAM_END,
    Z_STREAM_ERROR, Z_SYNC_FLUSH, internal_state, uInt, uLong, zlibVersion,
};

pub type z_size = c_ulong;
pub type z_checksum = c_ulong;
pub type voidpf = *mut c_void;
pub type alloc_func = unsafe extern "C" fn(voidpf, uInt, uInt) -> voidpf;
pub type free_func = unsafe extern "C" fn(voidpf, voidpf);

/// zlib's stream. zlib-rs has `Option`s where flate2 writes the allocator functions without one;
/// the two layouts are the same (an `Option` of a function pointer is that pointer or null), and
/// the assertions below hold that.
#[repr(C)]
pub struct z_stream {
    pub next_in: *const Bytef,
    pub avail_in: uInt,
    pub total_in: z_size,
    pub next_out: *mut Bytef,
    pub avail_out: uInt,
    pub total_out: z_size,
    pub msg: *mut c_char,
    pub state: *mut internal_state,
    pub zalloc: alloc_func,
    pub zfree: free_func,
    pub opaque: voidpf,
    pub data_type: c_int,
    pub adler: z_checksum,
    pub reserved: uLong,
}
pub type z_streamp = *mut z_stream;

macro_rules! same_layout {
    ($($field:ident),+) => {
        const _: () = {
            assert!(size_of::<z_stream>() == size_of::<libz_rs_sys::z_stream>());
            assert!(align_of::<z_stream>() == align_of::<libz_rs_sys::z_stream>());
            $(assert!(
                core::mem::offset_of!(z_stream, $field)
                    == core::mem::offset_of!(libz_rs_sys::z_stream, $field)
            );)+
        };
    };
}
same_layout!(
    next_in, avail_in, total_in, next_out, avail_out, total_out, msg, state, zalloc, zfree, opaque,
    data_type, adler, reserved
);

macro_rules! forward {
    ($($name:ident($($arg:ident: $type:ty),*);)+) => {
        $(
            // SAFETY: the caller keeps zlib's contract, and the cast is between equal layouts.
            pub unsafe extern "C" fn $name(strm: z_streamp, $($arg: $type),*) -> c_int {
                unsafe { libz_rs_sys::$name(strm.cast(), $($arg),*) }
            }
        )+
    };
}
forward! {
    deflate(flush: c_int);
    deflateEnd();
    deflateReset();
    deflateParams(level: c_int, strategy: c_int);
    deflateSetDictionary(dictionary: *const Bytef, length: uInt);
    deflateInit2_(level: c_int, method: c_int, window_bits: c_int, mem_level: c_int,
                  strategy: c_int, version: *const c_char, stream_size: c_int);
    inflate(flush: c_int);
    inflateEnd();
    inflateReset();
    inflateReset2(window_bits: c_int);
    inflateSetDictionary(dictionary: *const Bytef, length: uInt);
    inflateInit2_(window_bits: c_int, version: *const c_char, stream_size: c_int);
}
