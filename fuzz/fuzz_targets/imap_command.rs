//! See `waypost_fuzz::imap_command`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| waypost_fuzz::imap_command(input));
