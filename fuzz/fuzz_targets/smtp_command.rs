//! See `waypost_fuzz::smtp_command`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| waypost_fuzz::smtp_command(input));
