//! Users of this machine: as which accounts they may submit, and which mailbox is theirs.
//!
//! `[accounts.NAME] users = [...]` gives the right; root has it for every account, as root could take it anyway.

use super::{Account, Config, Lookup};
use crate::address::{Domain, LocalPart, Mailbox};
use crate::names::AccountName;

/// A user of this machine, as the kernel told us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemUser {
    /// Its number; 0 is root.
    pub uid: u32,
    /// Its name, where it has one.
    pub name: Option<String>,
}

impl SystemUser {
    fn is_listed(&self, account: &Account) -> bool {
        self.name.as_ref().is_some_and(|name| account.users.contains(name))
            || account.users.contains(&self.uid.to_string())
    }
}

/// By name, or by number where it has none.
impl std::fmt::Display for SystemUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.name {
            Some(name) => f.pad(name),
            None => self.uid.fmt(f),
        }
    }
}

impl Config {
    /// Whether some account lets this user submit.
    pub fn may_submit(&self, user: &SystemUser) -> bool {
        user.uid == 0 || self.accounts.values().any(|account| user.is_listed(account))
    }

    /// The account as which a user sends from an address, if it may.
    pub fn sends_as(&self, user: &SystemUser, sender: &Mailbox) -> Option<&AccountName> {
        let Lookup::Account(owner) = self.lookup(sender) else { return None };
        let account = self.accounts.get(owner)?;
        (user.uid == 0 || user.is_listed(account)).then_some(owner)
    }

    /// What a user sends from where it names no address: the first address of an account that lists it, rather of the
    /// one that bears its name; root's is the postmaster's.
    pub fn sender_of(&self, user: &SystemUser) -> Option<Mailbox> {
        let listed = |(_, account): &(&AccountName, &Account)| user.is_listed(account);
        let own = user.name.as_deref().and_then(|name| self.named(name)).filter(listed);
        let others = self.accounts.iter().filter(listed);
        let first = own.into_iter().chain(others).find_map(|(name, account)| self.address_of(name, account));
        first.or_else(|| if user.uid == 0 { self.postmasters_address() } else { None })
    }

    /// The mailbox that mail for a user of this machine goes to (`root`, without a domain): of the account that bears
    /// the name, else of the first that lists it; root's mail goes to the postmaster.
    pub fn mailbox_of(&self, user: &str) -> Option<Mailbox> {
        let listing = self.accounts.iter().filter(|(_, account)| account.users.contains(user));
        let found = self
            .named(user)
            .into_iter()
            .chain(listing)
            .find_map(|(name, account)| self.address_of(name, account));
        let official = || matches!(user, "root" | "postmaster" | "mailer-daemon");
        found.or_else(|| if official() { self.postmasters_address() } else { None })
    }

    /// Whether a domain stands for this machine rather than for mail: `localhost`, or our host name where it is not
    /// one of the domains.
    pub fn is_this_machine(&self, domain: &Domain) -> bool {
        !self.domains.contains_key(domain) && (domain.as_str() == "localhost" || *domain == self.hostname)
    }

    fn named(&self, name: &str) -> Option<(&AccountName, &Account)> {
        self.accounts.get_key_value(&AccountName::new(name).ok()?)
    }

    /// The first address; an account that only catches what no other takes has its name in that domain.
    fn address_of(&self, name: &AccountName, account: &Account) -> Option<Mailbox> {
        account.first_address.clone().or_else(|| {
            let caught = self.domains.iter().find(|(_, domain)| domain.catch_all.as_ref() == Some(name));
            let local = LocalPart::from_unquoted(name.as_str()).ok()?;
            let mailbox = Mailbox { local, domain: caught?.0.clone() };
            matches!(self.lookup(&mailbox), Lookup::Account(owner) if owner == name).then_some(mailbox)
        })
    }

    fn postmasters_address(&self) -> Option<Mailbox> {
        let name = self.postmaster.as_ref()?;
        self.address_of(name, self.accounts.get(name)?)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config() -> Config {
        let text = r#"
            hostname = "web1.example.org"
            postmaster = "zoe"
            [domains."example.org"]
            catch_all = "zoe"
            [accounts.ann]
            addresses = ["z@example.org", "ann@example.org"]
            users = ["ann", "1234"]
            [accounts.site]
            addresses = ["noreply@example.org"]
            users = ["www-data", "ann"]
            [accounts.bob]
            addresses = ["bob@example.org"]
            [accounts.zoe]
        "#;
        Config::parse(text, Path::new("waypost.toml")).unwrap()
    }

    fn user(uid: u32, name: &str) -> SystemUser {
        SystemUser { uid, name: Some(name.to_owned()).filter(|name| !name.is_empty()) }
    }

    #[test]
    fn who_sends_as_whom() {
        let config = config();
        let sends = |user: &SystemUser, from: &str| {
            let from = Mailbox::parse(from).unwrap();
            config.sends_as(user, &from).map_or("no", AccountName::as_str)
        };
        for (user, from, account) in [
            (user(33, "www-data"), "noreply@example.org", "site"),
            (user(33, "www-data"), "NoReply@EXAMPLE.org", "site"),
            (user(33, "www-data"), "ann@example.org", "no"),
            (user(33, "www-data"), "x@elsewhere.example", "no"),
            (user(1000, "ann"), "ann@example.org", "ann"),
            (user(1000, "ann"), "noreply@example.org", "site"),
            (user(1234, ""), "ann@example.org", "ann"),
            (user(5, "1234"), "ann@example.org", "ann"),
            (user(1001, "bob"), "bob@example.org", "no"),
            (user(0, "root"), "bob@example.org", "bob"),
            (user(0, "root"), "anything@example.org", "zoe"),
            (user(0, "root"), "x@elsewhere.example", "no"),
        ] {
            assert_eq!(sends(&user, from), account, "{user} {from}");
        }
        assert!(!config.may_submit(&user(1001, "bob")) && config.may_submit(&user(33, "www-data")));
    }

    #[test]
    fn what_a_user_sends_from_and_where_its_mail_goes() {
        let config = config();
        let text = |mailbox: Option<Mailbox>| mailbox.map_or_else(|| "none".to_owned(), |m| m.to_string());
        for (uid, name, address) in [
            (1000, "ann", "z@example.org"),
            (33, "www-data", "noreply@example.org"),
            (1001, "bob", "none"),
            (0, "root", "zoe@example.org"),
        ] {
            assert_eq!(text(config.sender_of(&user(uid, name))), address, "{name}");
        }
        for (name, address) in [
            ("ann", "z@example.org"),
            ("bob", "bob@example.org"),
            ("www-data", "noreply@example.org"),
            ("root", "zoe@example.org"),
            ("nobody", "none"),
            ("not a name", "none"),
        ] {
            assert_eq!(text(config.mailbox_of(name)), address, "{name}");
        }
        for (domain, here) in [("localhost", true), ("web1.example.org", true), ("example.org", false)] {
            assert_eq!(config.is_this_machine(&Domain::parse(domain).unwrap()), here);
        }
    }
}
