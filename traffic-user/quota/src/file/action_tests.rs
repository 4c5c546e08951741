//! Actions and alerts as written, and every mistake in them.

use std::{path::PathBuf, time::Duration};

use crate::{
    action::{Means, Secret},
    alert::{Alert, ProblemKind},
    crossing::Change,
    file::{Quotas, tests::mistakes},
};

fn means(lines: &str) -> Means {
    let text = format!("[[action]]\nname = 'a'\n{lines}\n");
    Quotas::parse(&text).unwrap().actions.remove(0).means
}

#[test]
fn a_webhook_and_a_mail_have_their_defaults() {
    let Means::Webhook { url, secret, ca_file, events } = means("webhook = 'https://billing.example/h'")
    else {
        panic!("no webhook");
    };
    assert_eq!(
        (url.host.as_str(), url.target.as_str(), secret, ca_file),
        ("billing.example", "/h", None, None)
    );
    assert_eq!(events, [Change::Reached, Change::Undone, Change::Ended]);
    let whole =
        "webhook = 'http://[::1]:8080'\nsecret_file = '/etc/key'\nca_file = '/etc/ca'\nevents = ['undone']";
    let Means::Webhook { url, secret, ca_file, events } = means(whole) else { panic!("no webhook") };
    assert_eq!((url.is_encrypted, url.port), (false, 8080));
    assert_eq!(secret, Some(Secret::File(PathBuf::from("/etc/key"))));
    assert_eq!((ca_file, events), (Some(PathBuf::from("/etc/ca")), vec![Change::Undone]));
    let of_unit = means("webhook = 'https://h/'\nsecret_credential = 'hook.key'");
    assert!(
        matches!(of_unit, Means::Webhook { secret: Some(Secret::Credential(name)), .. } if name == "hook.key")
    );
    assert_eq!(
        means("mail = 'noc@example.net'"),
        Means::Mail {
            to: vec!["noc@example.net".to_owned()],
            from: None,
            sendmail: PathBuf::from("/usr/sbin/sendmail"),
            events: vec![Change::Reached, Change::Undone],
        }
    );
    assert_eq!(
        means(
            "mail = ['root', 'a+b@c.example']\nfrom = 't@n7'\nsendmail = '/usr/bin/msmtp'\nevents = ['ended']"
        ),
        Means::Mail {
            to: vec!["root".to_owned(), "a+b@c.example".to_owned()],
            from: Some("t@n7".to_owned()),
            sendmail: PathBuf::from("/usr/bin/msmtp"),
            events: vec![Change::Ended],
        }
    );
}

#[test]
fn an_alert_is_for_all_problems_or_for_some() {
    let text = "[[action]]\nname = 'a'\ncommand = ['/a']\n[[alert]]\nactions = ['a']\n[[alert]]\n\
                problems = ['disk', 'drains', 'disk']\nactions = ['a']\nafter = '5m'\n";
    let alerts = Quotas::parse(text).unwrap().alerts;
    let actions = vec!["a".to_owned()];
    let all = ProblemKind::ALL.map(|(kind, _)| kind).to_vec();
    let first = Alert { line: 4, problems: all, actions: actions.clone(), after: Duration::from_mins(1) };
    let problems = vec![ProblemKind::Drains, ProblemKind::Disk];
    assert_eq!(alerts, [first, Alert { line: 6, problems, actions, after: Duration::from_mins(5) }]);
}

#[test]
fn every_mistake_says_what_to_write_and_repeats_no_secret() {
    for (lines, problem) in [
        ("webhook = 'http://billing.example/t0ken'", "`webhook`: only this machine"),
        ("webhook = 'https://u:t0ken@h/'", "a password"),
        ("webhook = 'https://h/'\nsecret_file = 'whsec_t0ken'", "put the secret into a file"),
        ("webhook = 'https://h/'\nsecret_credential = 'whsec_t0ken'", "LoadCredential="),
        ("webhook = 'https://h/'\nsecret_credential = '../t0ken'", "LoadCredential="),
        ("webhook = 'https://h/'\nsecret_file = '/a'\nsecret_credential = 'b'", "given twice"),
        ("webhook = 'https://h/'\nca_file = 'a'", "no absolute path"),
        ("webhook = 'https://h/'\nlift = ['/a']", "`lift` belongs to a command"),
        ("webhook = 'https://h/'\nmail = 'a'", "make it two"),
        ("webhook = 'https://h/'\nevents = []", "no events"),
        ("webhook = 'https://h/'\nevents = ['raised']", "\"reached\""),
        ("webhook = ['https://h/']", "not a text"),
        ("webhook = 'https://h/'\nagain = '5m'", "`again` belongs to a command"),
        ("command = ['/a']\nagain = '59s'", "write 1m to 1d"),
        ("command = ['/a']\nagain = '25h'", "write 1m to 1d"),
        ("command = ['/a']\nagain = 5", "not a text"),
        ("command = ['/a']\nevents = ['reached']", "remove `events`"),
        ("command = ['/a']\nfrom = 'x'", "belongs to a mail"),
        ("mail = ''", "not an address"),
        ("mail = '-oQ/tmp@x'", "not an address"),
        ("mail = 'a@b, c@d'", "not an address"),
        ("mail = \"a@b\\nBcc: c@d\"", "not an address"),
        ("mail = 'a b@c'", "not an address"),
        ("mail = []", "not one to 20 addresses"),
        ("mail = [1]", "no address"),
        ("mail = 'a'\nfrom = 'A <a@b>'", "not an address"),
        ("mail = 'a'\nsendmail = 'msmtp'", "no absolute path"),
        ("mail = 'a'\nsecret_file = '/a'", "belongs to a webhook"),
    ] {
        let found = mistakes(&format!("[[action]]\nname = 'warn'\n{lines}\n"));
        assert!(found.len() == 1 && found[0].2.contains(problem), "{lines}: {found:?}");
        assert!(!found[0].2.contains("t0ken"), "{found:?}");
    }
    for (lines, problem) in [
        ("", "the alert has no actions"),
        ("actions = []", "the alert has no actions"),
        ("actions = 'a'", "no names of actions"),
        ("actions = ['b']", "no action is named \"b\""),
        ("actions = ['a', 'a']", "listed twice"),
        ("actions = ['a']\nproblems = ['disc']", "not a kind of problems; known are daemon, "),
        ("actions = ['a']\nproblems = []", "`problems` is empty"),
        ("actions = ['a']\nproblems = 'disk'", "is no list"),
        ("actions = ['a']\nafter = '2d'", "write 0s to 1d"),
        ("actions = ['a']\nafte = '2s'", "unknown key `afte`; write `after`"),
    ] {
        let found = mistakes(&format!("[[action]]\nname = 'a'\ncommand = ['/a']\n[[alert]]\n{lines}\n"));
        assert!(found.len() == 1 && found[0].2.contains(problem), "{lines}: {found:?}");
    }
}
