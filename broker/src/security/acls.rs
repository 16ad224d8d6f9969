//! Rules of who may do what (KIP-11, KIP-290).

use std::collections::{BTreeMap, BTreeSet};

use bincode::{Decode, Encode};
use callboard_common::kafka::Text;
use callboard_common::protocol::security::{
    Acl, AclFilter, Operation, PatternFilter, PatternKind, Permission, ResourceKind,
};

use super::Principal;

/// What a rule says, without its resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
struct Rule {
    principal: Text,
    host: Text,
    operation: Operation,
    permission: Permission,
}

/// All rules, found by resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct AclSet(BTreeMap<(ResourceKind, PatternKind), BTreeMap<Text, BTreeSet<Rule>>>);

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Who.
    pub principal: &'a Principal,
    /// From where: an address.
    pub host: &'a str,
    /// What.
    pub operation: Operation,
    /// To which kind of thing.
    pub resource: ResourceKind,
}

impl Rule {
    fn concerns(&self, question: &Question<'_>) -> bool {
        (&*self.principal == "User:*" || question.principal.is_called(&self.principal))
            && (&*self.host == "*" || &*self.host == question.host)
    }

    fn denies(&self, question: &Question<'_>) -> bool {
        self.permission == Permission::Deny
            && self.concerns(question)
            && (self.operation == Operation::All || self.operation == question.operation)
    }

    fn allows(&self, question: &Question<'_>) -> bool {
        self.permission == Permission::Allow
            && self.concerns(question)
            && implies(self.operation, question.operation)
    }
}

/// Whether who may do `allowed` may do `wanted` too.
fn implies(allowed: Operation, wanted: Operation) -> bool {
    let describes = [
        Operation::Read,
        Operation::Write,
        Operation::Delete,
        Operation::Alter,
    ];
    allowed == Operation::All
        || allowed == wanted
        || (wanted == Operation::Describe && describes.contains(&allowed))
        || (wanted == Operation::DescribeConfigs && allowed == Operation::AlterConfigs)
}

impl AclSet {
    /// Adds a rule; one that is there stays.
    pub fn add(&mut self, acl: Acl) {
        let names = self.0.entry((acl.resource, acl.pattern)).or_default();
        let _is_new: bool = names.entry(acl.name).or_default().insert(Rule {
            principal: acl.principal,
            host: acl.host,
            operation: acl.operation,
            permission: acl.permission,
        });
    }

    /// Removes a rule.
    pub fn remove(&mut self, acl: &Acl) {
        let key = (acl.resource, acl.pattern);
        let Some(names) = self.0.get_mut(&key) else {
            return;
        };
        if let Some(rules) = names.get_mut(&acl.name) {
            rules.retain(|r| {
                (&r.principal, &r.host, r.operation, r.permission)
                    != (&acl.principal, &acl.host, acl.operation, acl.permission)
            });
            if rules.is_empty() {
                drop(names.remove(&acl.name));
            }
        }
        if names.is_empty() {
            drop(self.0.remove(&key));
        }
    }

    /// All rules, sorted.
    pub fn iter(&self) -> impl Iterator<Item = Acl> {
        self.0.iter().flat_map(|((resource, pattern), names)| {
            names.iter().flat_map(|(name, rules)| {
                rules.iter().map(|rule| Acl {
                    resource: *resource,
                    pattern: *pattern,
                    name: name.clone(),
                    principal: rule.principal.clone(),
                    host: rule.host.clone(),
                    operation: rule.operation,
                    permission: rule.permission,
                })
            })
        })
    }

    /// The rules that a filter finds, sorted.
    #[must_use]
    pub fn find(&self, filter: &AclFilter) -> Vec<Acl> {
        self.iter().filter(|acl| matches(filter, acl)).collect()
    }

    /// The rules for the resource of this name.
    fn about<'a>(
        &'a self,
        resource: ResourceKind,
        name: &'a str,
    ) -> impl Iterator<Item = &'a Rule> {
        let literal = self.0.get(&(resource, PatternKind::Literal));
        let exact = literal
            .into_iter()
            .flat_map(move |names| names.get(name).into_iter().chain(names.get("*")));
        let prefixed = self.0.get(&(resource, PatternKind::Prefixed));
        let prefixes = prefixed.into_iter().flat_map(move |names| {
            let ends = (0..=name.len()).filter(|end| name.is_char_boundary(*end));
            ends.filter_map(move |end| names.get(&name[..end]))
        });
        exact.chain(prefixes).flatten()
    }

    /// Whether the rules allow something to be done to the resource of this name.
    #[must_use]
    pub fn allow(&self, question: &Question<'_>, name: &str) -> bool {
        let mut allowed = false;
        for rule in self.about(question.resource, name) {
            if rule.denies(question) {
                return false;
            }
            allowed |= rule.allows(question);
        }
        allowed
    }

    /// Whether the rules allow something to be done to at least one resource of the kind.
    #[must_use]
    pub fn allow_any(&self, question: &Question<'_>) -> bool {
        let of_kind = |pattern| {
            self.0
                .get(&(question.resource, pattern))
                .into_iter()
                .flatten()
        };
        let denied_all = self
            .0
            .get(&(question.resource, PatternKind::Literal))
            .and_then(|names| names.get("*"))
            .is_some_and(|rules| rules.iter().any(|r| r.denies(question)));
        let literal = of_kind(PatternKind::Literal).any(|(name, rules)| {
            rules.iter().any(|r| r.allows(question))
                && (&**name == "*" || self.allow(question, name))
        });
        let prefixed = of_kind(PatternKind::Prefixed).any(|(name, rules)| {
            rules.iter().any(|r| r.allows(question)) && self.allow(question, name)
        });
        !denied_all && (literal || prefixed)
    }
}

fn matches(filter: &AclFilter, acl: &Acl) -> bool {
    let named = match (&filter.pattern, &filter.name) {
        (PatternFilter::Exactly(kind), _) if *kind != acl.pattern => false,
        (_, None) => true,
        (PatternFilter::Any | PatternFilter::Exactly(_), Some(name)) => *name == acl.name,
        (PatternFilter::Match, Some(name)) => match acl.pattern {
            PatternKind::Literal => *name == acl.name || &*acl.name == "*",
            PatternKind::Prefixed => name.starts_with(&*acl.name),
        },
    };
    let same = |wanted: &Option<Text>, there: &Text| wanted.as_ref().is_none_or(|w| w == there);
    named
        && filter.resource.is_none_or(|r| r == acl.resource)
        && same(&filter.principal, &acl.principal)
        && same(&filter.host, &acl.host)
        && filter.operation.is_none_or(|o| o == acl.operation)
        && filter.permission.is_none_or(|p| p == acl.permission)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(
        pattern: PatternKind,
        name: &str,
        who: &str,
        operation: Operation,
        permission: Permission,
    ) -> Acl {
        Acl {
            resource: ResourceKind::Topic,
            pattern,
            name: name.into(),
            principal: who.into(),
            host: "*".into(),
            operation,
            permission,
        }
    }

    fn set(acls: &[Acl]) -> AclSet {
        let mut set = AclSet::default();
        acls.iter().cloned().for_each(|a| set.add(a));
        set
    }

    fn ask(set: &AclSet, who: &str, operation: Operation, topic: &str) -> bool {
        let principal = Principal::User(who.into());
        let question = Question {
            principal: &principal,
            host: "10.0.0.1",
            operation,
            resource: ResourceKind::Topic,
        };
        set.allow(&question, topic)
    }

    use Operation::{All, Alter, Describe, Read, Write};
    use PatternKind::{Literal, Prefixed};
    use Permission::{Allow, Deny};

    #[test]
    fn what_no_rule_allows_is_refused() {
        let set = set(&[acl(Literal, "orders", "User:ann", Read, Allow)]);
        assert!(ask(&set, "ann", Read, "orders"));
        assert!(
            ask(&set, "ann", Describe, "orders"),
            "reading implies describing"
        );
        assert!(!ask(&set, "ann", Write, "orders"));
        assert!(!ask(&set, "bob", Read, "orders"));
        assert!(!ask(&set, "ann", Read, "orders2"));
        assert!(!ask(&set, "Ann", Read, "orders"), "case counts");
    }

    #[test]
    fn a_rule_that_denies_beats_all_that_allow() {
        let set = set(&[
            acl(Literal, "*", "User:*", All, Allow),
            acl(Prefixed, "secret-", "User:ann", All, Deny),
        ]);
        assert!(ask(&set, "ann", Alter, "orders"));
        assert!(!ask(&set, "ann", Read, "secret-plans"));
        assert!(ask(&set, "bob", Read, "secret-plans"));
    }

    /// A literal name is no prefix, a star in a prefix is no wildcard.
    #[test]
    fn patterns_are_not_confused() {
        let set = set(&[
            acl(Literal, "a", "User:ann", Read, Allow),
            acl(Prefixed, "b", "User:ann", Read, Allow),
            acl(Prefixed, "*", "User:bob", Read, Allow),
        ]);
        assert!(
            !ask(&set, "ann", Read, "ab")
                && ask(&set, "ann", Read, "ba")
                && ask(&set, "ann", Read, "b")
        );
        assert!(!ask(&set, "bob", Read, "c"));
    }

    #[test]
    fn filters_find_what_kafka_finds() {
        let rules = [
            acl(Literal, "orders", "User:ann", Read, Allow),
            acl(Prefixed, "ord", "User:bob", Read, Allow),
            acl(Literal, "*", "User:cat", Read, Allow),
        ];
        let set = set(&rules);
        let find = |pattern, name: Option<&str>| {
            let filter = AclFilter {
                resource: Some(ResourceKind::Topic),
                pattern,
                name: name.map(Into::into),
                principal: None,
                host: None,
                operation: None,
                permission: None,
            };
            set.find(&filter).len()
        };
        assert_eq!(find(PatternFilter::Match, Some("orders")), 3);
        assert_eq!(find(PatternFilter::Any, Some("ord")), 1);
        assert_eq!(find(PatternFilter::Exactly(Literal), Some("orders")), 1);
        assert_eq!(find(PatternFilter::Any, None), 3);
        let mut set = set.clone();
        rules.iter().for_each(|r| set.remove(r));
        assert_eq!(set, AclSet::default());
    }

    #[test]
    fn one_allowed_topic_is_enough_to_be_a_producer() {
        let ask = |set: &AclSet| {
            let principal = Principal::User("ann".into());
            set.allow_any(&Question {
                principal: &principal,
                host: "h",
                operation: Write,
                resource: ResourceKind::Topic,
            })
        };
        assert!(!ask(&AclSet::default()));
        let mine = acl(Prefixed, "a", "User:ann", Write, Allow);
        assert!(ask(&set(std::slice::from_ref(&mine))));
        assert!(!ask(&set(&[mine, acl(Literal, "*", "User:*", All, Deny)])));
    }
}
