//! The user and the group that the daemon gives up root for (`-u`).

use std::ffi::CString;

use nix::unistd::{Gid, Group, Uid, User, initgroups, setgid, setgroups, setuid};

/// A user, a group, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    user: Option<(CString, Uid)>,
    group: Gid,
    named_group: bool,
}

/// Reads `USER[:GROUP]` or `:GROUP`. Without a group it is the user's own.
pub(crate) fn parse(text: &str) -> Result<Identity, String> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let found = match (user, group) {
        ("", Some(_)) => None,
        (name, _) => Some(find_user(name)?),
    };
    let named = group.map(find_group).transpose()?;
    let own = found.as_ref().map(|user| user.gid);
    Ok(Identity {
        group: named.or(own).ok_or_else(|| format!("can't find ID for the group: {text}"))?,
        user: found.and_then(|user| Some((CString::new(user.name).ok()?, user.uid))),
        named_group: named.is_some(),
    })
}

impl Identity {
    /// The user's id, unless only a group is changed.
    pub(crate) fn uid(&self) -> Option<u32> {
        self.user.as_ref().map(|(_, uid)| uid.as_raw())
    }

    /// The group's id.
    pub(crate) fn gid(&self) -> u32 {
        self.group.as_raw()
    }

    /// True if the operator named the group.
    pub(crate) fn group_is_named(&self) -> bool {
        self.named_group
    }

    /// Makes the whole process run as this user and group. There is no way back.
    ///
    /// # Errors
    /// The process is not permitted to; it may have changed its groups by then and must end.
    pub(crate) fn assume(&self) -> nix::Result<()> {
        match &self.user {
            Some((name, _)) => initgroups(name, self.group)?,
            None => setgroups(&[self.group])?,
        }
        setgid(self.group)?;
        if let Some((_, uid)) = self.user {
            setuid(uid)?;
        }
        Ok(())
    }
}

fn find_user(name: &str) -> Result<User, String> {
    User::from_name(name).ok().flatten().ok_or_else(|| format!("can't find ID for the user: {name}"))
}

fn find_group(name: &str) -> Result<Gid, String> {
    let found = Group::from_name(name).ok().flatten();
    Ok(found.ok_or_else(|| format!("can't find ID for the group: {name}"))?.gid)
}
