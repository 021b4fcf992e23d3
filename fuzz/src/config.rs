//! The configuration file.

use std::path::Path;

use waypost::address::Mailbox;
use waypost::config::Config;

/// A text is a configuration, or has problems, all of which have a place and can be shown.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Config::parse(text, Path::new("/etc/waypost/waypost.toml")) {
        Ok(config) => {
            for domain in config.domains.keys() {
                for local in ["postmaster", "ann+tag", "nobody"] {
                    if let Ok(mailbox) = Mailbox::parse(&format!("{local}@{domain}")) {
                        let _ = config.lookup(&mailbox);
                    }
                }
            }
            assert!(config.transport("direct").is_some());
        }
        Err(problems) => {
            assert!(!problems.problems().is_empty());
            for problem in problems.problems() {
                assert!(!problem.message.is_empty());
                assert_eq!(problems.line_and_column(problem).is_some(), problem.place.is_some());
            }
            let shown = problems.render(false);
            assert!(shown.contains("problem"), "{shown:?}");
            assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "a terminal would obey: {shown:?}");
            assert!(!problems.render(true).is_empty());
        }
    }
}
