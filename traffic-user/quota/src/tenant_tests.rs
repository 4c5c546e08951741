use super::*;
use crate::quota::Quota;

const FILE: &str = "\
[[tenant]]
name = 'acme'
containers = ['101', '102']
[[tenant]]
name = 'acme'
containers = ['103']
from = '2026-11-20'
[[tenant]]
name = 'umbrella'
containers = ['103']
until = '2026-11-20'
[[quota]]
name = 'traffic'
tenant = 'acme'
allowance = '5TB'
[[quota]]
name = 'traffic'
tenant = 'umbrella'
allowance = '1TB'
[[quota]]
name = 'traffic'
container = '102'
allowance = '2TB'
[[quota]]
name = 'traffic'
pattern = '10*'
allowance = '3TB'
";

fn on(id: &str, day: &str) -> Container {
    Container { ids: vec![id.to_owned(), format!("uuid-{id}")], name: None, day: day.parse().ok() }
}

#[test]
fn a_container_has_the_quota_of_its_tenant_on_that_day() {
    let quotas = Quotas::parse(FILE).unwrap();
    let lines = |id: &str, day: &str| {
        quotas.of(&on(id, day)).into_iter().map(|quota: &Quota| quota.line).collect::<Vec<_>>()
    };
    assert_eq!(lines("101", "2026-11-19"), [12]);
    assert_eq!(lines("102", "2026-11-19"), [20], "its own quota comes before that of its tenant");
    assert_eq!(lines("103", "2026-11-19"), [16]);
    assert_eq!(lines("103", "2026-11-20"), [12]);
    assert_eq!(lines("104", "2026-11-20"), [24]);
    assert_eq!(lines("103", "no day"), [12], "what lasts");
}

fn mistakes(text: &str) -> Vec<String> {
    let found = Quotas::parse(text).unwrap_err();
    found.into_iter().map(|one| format!("{}: {}", one.line, one.message)).collect()
}

#[test]
fn mistakes_in_tenants_are_named_with_their_lines() {
    let tenant = |rest: &str| mistakes(&format!("[[tenant]]\nname = 'a'\n{rest}"));
    assert!(tenant("")[0].starts_with("1: the tenant has no containers; write a list of ids"));
    assert!(tenant("containers = '101'")[0].starts_with("3: `containers` is no list"));
    assert!(tenant("containers = []")[0].starts_with("3: `containers` is empty"));
    assert!(tenant("containers = [101]")[0].starts_with("3: an id is not a text"));
    assert!(tenant("containers = ['1', '1']")[0].starts_with("3: container 1 is listed twice"));
    assert!(tenant("containers = ['a b']")[0].starts_with("3: "));
    assert!(tenant("containers = ['1']\nfrom = '20.11.2026'")[0].contains("is not a day; write one such as"));
    let ends = tenant("containers = ['1']\nfrom = '2026-11-20'\nuntil = '2026-11-20'");
    assert!(ends[0].starts_with("5: `until` is not after `from`"), "{ends:?}");
    assert!(tenant("containers = ['1']\nform = '2026-11-20'")[0].contains("write `from`"));
    assert!(mistakes("[[tenant]]\ncontainers = ['1']")[0].contains("the tenant has no name"));
    let twice = mistakes(
        "[[tenant]]\nname = 'a'\ncontainers = ['1']\n[[tenant]]\nname = 'b'\ncontainers = ['2', '1']\nfrom = '2026-11-20'\n",
    );
    assert_eq!(twice.len(), 1);
    assert!(twice[0].starts_with("4: container 1 is of tenant a at the same time, on line 1"), "{twice:?}");
    let quota = |rest: &str| {
        let text = format!("[[tenant]]\nname = 'a'\ncontainers = ['1']\n[[quota]]\nname = 'q'\n{rest}");
        mistakes(&text)
    };
    assert!(quota("tenant = 'b'\nallowance = '1GB'")[0].starts_with("4: no tenant is named \"b\""));
    let commit = quota("tenant = 'a'\ncommit = '1Mbit/s'");
    assert!(commit[0].starts_with("7: a tenant has an allowance"), "{commit:?}");
    let share = quota("tenant = 'a'\nallowance = '1GB'\nfirst_period = 'share'");
    assert!(share[0].starts_with("8: a tenant has no first period"), "{share:?}");
}
