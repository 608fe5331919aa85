//! Users and groups of this machine, by name or number.

use std::ffi::CString;

use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid, getgrouplist, getgroups};

/// A user as a login makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) user: u32,
    /// The first of its groups.
    pub(super) group: u32,
    /// All of its groups.
    pub(super) groups: Vec<u32>,
}

/// The user of this name or number, with `group` (else its own one) as the first of its groups.
pub(super) fn user(text: &str, group: Option<u32>) -> Result<Account, String> {
    let found = match text.parse() {
        Ok(number) => User::from_uid(Uid::from_raw(number)),
        Err(_) => User::from_name(text),
    };
    let user = known(found, text, "user")?;
    let name = CString::new(user.name).map_err(|_| format!("= \"{text}\" can't be looked up"))?;
    let group = group.map_or(user.gid, Gid::from_raw);
    let groups =
        getgrouplist(&name, group).map_err(|error| format!("= \"{text}\": its groups can't be looked up: {error}"))?;
    Ok(Account {
        user: user.uid.as_raw(),
        group: group.as_raw(),
        groups: groups.into_iter().map(Gid::as_raw).collect(),
    })
}

/// The group of this name or number.
pub(super) fn group(text: &str) -> Result<u32, String> {
    let found = match text.parse() {
        Ok(number) => Group::from_gid(Gid::from_raw(number)),
        Err(_) => Group::from_name(text),
    };
    known(found, text, "group").map(|group| group.gid.as_raw())
}

fn known<T>(found: nix::Result<Option<T>>, text: &str, what: &str) -> Result<T, String> {
    match found {
        Ok(Some(account)) => Ok(account),
        Ok(None) => Err(format!("= \"{text}\": this machine has no such {what}")),
        Err(error) => Err(format!("= \"{text}\" can't be looked up: {error}")),
    }
}

/// Whether this process may start others as another user.
pub(super) fn is_root() -> bool {
    geteuid().is_root()
}

/// Only root gives files to groups that it is not in (chown(2)).
pub(super) fn may_give_files_to(group: u32) -> Result<u32, String> {
    let mine = || getgroups().is_ok_and(|groups| groups.contains(&Gid::from_raw(group)));
    if is_root() || getegid().as_raw() == group || mine() {
        return Ok(group);
    }
    Err("is a group that wootz is not in: add its user to the group, or start it as root".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_known_by_name_and_by_number() {
        let root = user("root", None).expect("every machine has it");
        assert_eq!((root.user, root.group), (0, 0));
        assert!(root.groups.contains(&0));
        assert_eq!(user("0", None), Ok(root));
        assert_eq!(user("0", Some(7)).map(|root| (root.group, root.groups.contains(&7))), Ok((7, true)));
        assert_eq!((group("root"), group("0")), (Ok(0), Ok(0)));
    }

    #[test]
    fn unknown_accounts_are_named() {
        assert_eq!(user("no such user", None).unwrap_err(), "= \"no such user\": this machine has no such user");
        assert_eq!(group("4123456789").unwrap_err(), "= \"4123456789\": this machine has no such group");
    }
}
