//! A path of a simulated disk as one string of bytes.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Each component with a zero before it; the root is empty. Bytes order names as components order paths, and
/// comparing them costs a tenth of comparing paths.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name(Box<[u8]>);

impl From<&Path> for Name {
    fn from(path: &Path) -> Self {
        let bytes = path.as_os_str().as_encoded_bytes();
        let mut name = Vec::with_capacity(bytes.len() + 1);
        for component in bytes.split(|b| *b == b'/').filter(|c| !c.is_empty()) {
            name.push(0);
            name.extend_from_slice(component);
        }
        Self(name.into())
    }
}

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl Name {
    /// The directory that it is in; none of the root.
    pub(super) fn parent(&self) -> Option<&[u8]> {
        let last = self.0.iter().rposition(|b| *b == 0)?;
        Some(&self.0[..last])
    }

    /// What it is called in its directory; none of the root or of what is no text.
    pub(super) fn last(&self) -> Option<&str> {
        let last = self.0.iter().rposition(|b| *b == 0)?;
        str::from_utf8(&self.0[last + 1..]).ok()
    }

    /// Itself and all that it is in, down to the root.
    pub(super) fn ancestors(&self) -> impl Iterator<Item = Self> {
        let ends = (0..self.0.len()).filter(|i| self.0[*i] == 0);
        ends.chain([self.0.len()])
            .map(|end| Self(self.0[..end].into()))
    }

    /// Directories between it and the root, itself with them.
    pub(super) fn depth(&self) -> usize {
        self.0.iter().filter(|b| **b == 0).count()
    }

    /// Whether it is `dir` or below it.
    pub(super) fn is_within(&self, dir: &Self) -> bool {
        let below = self.0.strip_prefix(&*dir.0);
        below.is_some_and(|b| b.first().is_none_or(|b| *b == 0))
    }

    /// Whether it is in `dir`, and not deeper.
    pub(super) fn is_child_of(&self, dir: &Self) -> bool {
        self.parent() == Some(&*dir.0)
    }

    /// Those of some directories that are in this one.
    pub(super) fn children<'a>(
        &'a self,
        dirs: &'a BTreeSet<Self>,
    ) -> impl Iterator<Item = &'a Self> {
        // What is below it stands together behind it.
        let below = dirs
            .range::<Self, _>(self..)
            .take_while(|d| d.is_within(self));
        below.filter(|d| d.is_child_of(self))
    }

    /// The same name with the directory `from` in front replaced by `to`, or itself.
    pub(super) fn moved(&self, from: &Self, to: &Self) -> Self {
        if self.is_within(from) {
            Self([&*to.0, &self.0[from.0.len()..]].concat().into())
        } else {
            self.clone()
        }
    }
}

/// Files by the directory that they are in, and what is behind each.
#[derive(Clone, Debug, Default)]
pub(super) struct Names(BTreeMap<Name, BTreeMap<Name, u64>>);

impl Names {
    pub(super) fn get(&self, name: &Name) -> Option<u64> {
        self.0.get(name.parent()?)?.get(name).copied()
    }

    pub(super) fn insert(&mut self, name: Name, inode: u64) {
        let dir = Name(name.parent().unwrap_or_default().into());
        let _before = self.0.entry(dir).or_default().insert(name, inode);
    }

    pub(super) fn remove(&mut self, name: &Name) -> Option<u64> {
        self.0.get_mut(name.parent()?)?.remove(name)
    }

    /// What a directory holds.
    pub(super) fn inside(&self, dir: &Name) -> Option<&BTreeMap<Name, u64>> {
        self.0.get(dir)
    }

    /// A directory holds what it holds in `other`.
    pub(super) fn copy_dir(&mut self, dir: &Name, other: &Self) {
        match other.inside(dir) {
            Some(there) if self.inside(dir) == Some(there) => {}
            Some(there) => drop(self.0.insert(dir.clone(), there.clone())),
            None => drop(self.0.remove(dir)),
        }
    }

    /// All of them, directory by directory.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Name, &u64)> {
        self.0.values().flatten()
    }

    /// Those whose directory is wanted stay.
    pub(super) fn retain_dirs(&mut self, is_wanted: impl Fn(&Name) -> bool) {
        self.0.retain(|dir, _| is_wanted(dir));
    }
}

impl FromIterator<(Name, u64)> for Names {
    fn from_iter<I: IntoIterator<Item = (Name, u64)>>(all: I) -> Self {
        let mut names = Self::default();
        for (name, inode) in all {
            names.insert(name, inode);
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ordered_as_paths_are() {
        let paths = [
            "/", "/a", "/a/b", "/a/b/c", "/a-", "/a-/b", "/ab", "/b", "/b//c/",
        ];
        for (a, b) in paths.iter().flat_map(|a| paths.iter().map(move |b| (a, b))) {
            let (a, b) = (Path::new(a), Path::new(b));
            assert_eq!(Name::from(a).cmp(&Name::from(b)), a.cmp(b), "{a:?} {b:?}");
            let within = Name::from(a).is_within(&Name::from(b));
            assert_eq!(within, a.starts_with(b), "{a:?} {b:?}");
        }
        let (a, to) = (Name::from(Path::new("/a")), Name::from(Path::new("/x/y")));
        let moved = |path: &str| Name::from(Path::new(path)).moved(&a, &to);
        assert_eq!(moved("/a/b"), Name::from(Path::new("/x/y/b")));
        assert_eq!(moved("/ab"), Name::from(Path::new("/ab")));
        assert_eq!(moved("/a").parent(), Some(&b"\0x"[..]));
        assert_eq!(moved("/a").last(), Some("y"));
        let depths: Vec<_> = to.ancestors().map(|a| a.depth()).collect();
        assert_eq!(depths, [0, 1, 2]);
    }
}
