//! Which containers a quota is for, and which of several decides.
//!
//! Quotas of different names apply beside each other: a monthly and a daily one, say. Of one name, a
//! container has one quota: that for its id, else that of its tenant, else the first in the file whose pattern it
//! matches, else the default. Each container has the allowance for itself, however many match, except that the
//! containers of a tenant have it together. A pattern or a default is never
//! for the node itself, and never for an interface whose container is not known yet.

use jiff::civil::Date;
use traffic_model::{NODE_ID, is_pending};

use crate::{file::Quotas, quota::Quota};

/// Which containers a quota is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The one with this id.
    Container(String),
    /// Those of this tenant, who have the allowance together.
    Tenant(String),
    /// Those with a name, or an id, like this.
    Pattern(NamePattern),
    /// All that have no other quota of this name.
    Default,
}

impl Scope {
    /// In words.
    pub fn text(&self) -> String {
        match self {
            Self::Container(id) => format!("container {id}"),
            Self::Tenant(name) => format!("tenant {name}"),
            Self::Pattern(pattern) => format!("pattern {}", pattern.0),
            Self::Default => "default".to_owned(),
        }
    }
}

/// A pattern of names: `*` is any number of characters, `?` is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern(pub String);

impl NamePattern {
    /// Whether a whole text is like this.
    pub fn matches(&self, text: &str) -> bool {
        let pattern: Vec<char> = self.0.chars().collect();
        let text: Vec<char> = text.chars().collect();
        let (mut at, mut from) = (0, 0);
        // Where the last star is, and how much of the text it has taken.
        let mut star: Option<(usize, usize)> = None;
        while from < text.len() {
            match pattern.get(at) {
                Some('*') => {
                    star = Some((at, from));
                    at += 1;
                }
                Some(c) if *c == '?' || *c == text[from] => {
                    at += 1;
                    from += 1;
                }
                _ => {
                    let Some((star_at, taken)) = star else { return false };
                    star = Some((star_at, taken + 1));
                    (at, from) = (star_at + 1, taken + 1);
                }
            }
        }
        pattern[at..].iter().all(|c| *c == '*')
    }
}

/// A container, as far as quotas need to know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// All ids that it is known by.
    pub ids: Vec<String>,
    /// What people call it.
    pub name: Option<String>,
    /// The day on which it is asked about; `None` for one on which only what lasts is so.
    pub day: Option<Date>,
}

impl Container {
    fn is_ordinary(&self) -> bool {
        !self.ids.iter().any(|id| id == NODE_ID || is_pending(id))
    }
}

impl Quotas {
    /// The quotas of a container, in the order in which the file first has their names.
    pub fn of(&self, container: &Container) -> Vec<&Quota> {
        let mut chosen: Vec<(&Quota, u8)> = Vec::new();
        let tenant = self.tenant_of(container);
        for quota in &self.quotas {
            // The first name that the file has keeps its place, also where another quota of this name
            // decides.
            let rank = match &quota.scope {
                Scope::Container(id) if container.ids.contains(id) => 4,
                Scope::Tenant(name) if tenant == Some(name.as_str()) => 3,
                Scope::Pattern(pattern) if container.is_ordinary() && matches(pattern, container) => 2,
                Scope::Default if container.is_ordinary() => 1,
                _ => continue,
            };
            match chosen.iter_mut().find(|(other, _)| other.name == quota.name) {
                Some(other) if rank > other.1 => *other = (quota, rank),
                Some(_) => {}
                None => chosen.push((quota, rank)),
            }
        }
        chosen.into_iter().map(|(quota, _)| quota).collect()
    }
}

fn matches(pattern: &NamePattern, container: &Container) -> bool {
    container.name.iter().chain(&container.ids).any(|text| pattern.matches(text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn container(id: &str, name: Option<&str>) -> Container {
        Container { ids: vec![id.to_owned()], name: name.map(str::to_owned), day: None }
    }

    const FILE: &str = "\
[[quota]]
name = 'traffic'
default = true
allowance = '1TB'
[[quota]]
name = 'traffic'
pattern = 'shop-*'
allowance = '2TB'
[[quota]]
name = 'traffic'
pattern = '*-big'
allowance = '3TB'
[[quota]]
name = 'traffic'
container = '101'
allowance = '4TB'
[[quota]]
name = 'peak'
pattern = '1??'
allowance = '5GB'
period = 'day'
[[quota]]
name = 'traffic'
container = '0'
unlimited = true
[[quota]]
name = 'every'
pattern = '??*'
allowance = '5GB'
";

    #[test]
    fn the_id_goes_before_the_pattern_and_the_pattern_before_the_default() {
        let quotas = Quotas::parse(FILE).unwrap();
        let of = |id, name| {
            let found = quotas.of(&container(id, name));
            found.iter().map(|quota| (quota.name.as_str(), quota.line)).collect::<Vec<_>>()
        };
        assert_eq!(of("7", None), [("traffic", 1)]);
        assert_eq!(of("7", Some("shop-a")), [("traffic", 5), ("every", 26)]);
        assert_eq!(
            of("7", Some("shop-big")),
            [("traffic", 5), ("every", 26)],
            "the first of two patterns decides"
        );
        assert_eq!(of("7", Some("a-big")), [("traffic", 9), ("every", 26)]);
        assert_eq!(of("101", Some("shop-a")), [("traffic", 13), ("peak", 17), ("every", 26)]);
        assert_eq!(of("1012", None), [("traffic", 1), ("every", 26)]);
        assert_eq!(of("0", None), [("traffic", 22)], "the node has only what names it");
        assert_eq!(of("pending:veth1:3:x", None), [], "also by a pattern");
        assert_eq!(of("0", Some("the host")), [("traffic", 22)]);
        // A container is known by several ids.
        let both = Container { ids: vec!["0ab".to_owned(), "101".to_owned()], name: None, day: None };
        assert_eq!(quotas.of(&both)[0].line, 13);
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, text, is_like) in [
            ("*", "", true),
            ("*", "x", true),
            ("", "", true),
            ("", "x", false),
            ("shop-*", "shop-", true),
            ("shop-*", "ashop-b", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-d", false),
            ("?", "\u{4f60}", true),
            ("??", "\u{4f60}", false),
            ("a*", "A", false),
            ("*.example.com", "www.example.com", true),
            ("[ab]", "a", false),
        ] {
            assert_eq!(NamePattern(pattern.to_owned()).matches(text), is_like, "{pattern} {text}");
        }
    }

    /// A pattern that takes exponential time where each star is tried by itself.
    #[test]
    fn no_pattern_takes_long() {
        let pattern = NamePattern("*a".repeat(120) + "b");
        assert!(!pattern.matches(&"a".repeat(250)));
    }

    fn naively(pattern: &[char], text: &[char]) -> bool {
        match (pattern.first(), text.first()) {
            (None, None) => true,
            (Some('*'), _) => {
                naively(&pattern[1..], text) || (!text.is_empty() && naively(pattern, &text[1..]))
            }
            (Some(c), Some(other)) if *c == '?' || c == other => naively(&pattern[1..], &text[1..]),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn patterns_match_as_the_naive_reference(pattern in "[ab*?]{0,8}", text in "[ab]{0,10}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            let expected = naively(&chars(&pattern), &chars(&text));
            prop_assert_eq!(NamePattern(pattern).matches(&text), expected);
        }
    }
}
