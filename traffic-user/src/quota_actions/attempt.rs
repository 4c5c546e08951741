//! One attempt of a run: a program, a webhook or a mail.

use traffic_https::Client;
use traffic_quota::{Action, Means};

use super::{
    Order, command,
    mail::Mail,
    order::bare_environment,
    webhook::{self, Target},
};
use crate::time;

/// Runs an action once.
///
/// # Errors
/// Why it did not succeed, as a sentence.
pub(super) async fn carry_out(
    order: &Order,
    action: &Action,
    document: Vec<u8>,
    (node, client): (&str, &Client),
) -> Result<(), String> {
    let date = time::now_or_end();
    match &action.means {
        Means::Command { command, lift, .. } => {
            let words = if order.is_lift() { lift } else { command };
            command::run(words, action.timeout, &document, &order.environment()).await
        }
        Means::Webhook { url, secret, ca_file, .. } => {
            let target = Target { url: url.clone(), secret: secret.clone(), ca_file: ca_file.clone() };
            let event = order.cloud_event(node, document);
            webhook::send(client, &target, &event, date.as_second(), action.timeout).await
        }
        Means::Mail { to, from, sendmail, .. } => {
            let (subject, text) = order.letter(node);
            let from = from.as_deref();
            let mail = Mail { to, from, id: &order.id, date, subject: &subject, text: &text };
            let mut words = vec![sendmail.display().to_string(), "-t".to_owned(), "-oi".to_owned()];
            words.extend(from.iter().flat_map(|from| ["-f".to_owned(), (*from).to_owned()]));
            command::run(&words, action.timeout, &mail.message(), &bare_environment()).await
        }
    }
}
