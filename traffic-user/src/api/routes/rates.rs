//! `/api/v1/rates`: what passes each second, as server-sent events.

use std::{sync::Arc, time::Duration};

use axum::{extract::State, http::StatusCode, response::Response};
use tokio::{sync::mpsc, task, time};
use traffic_model::live_rates::{self, Selection};

use super::{Asked, options};
use crate::{
    api::{
        ReadNames, Source,
        answers::{error_answer, try_again},
        cached::Cached,
        event_stream,
        rate_hub::{Listener, MOST_LISTENERS, Reading},
        status_of,
    },
    queries::RateOptions,
    render::{json, live_rates as render, screen::ContainerNames},
};

/// How old the names of containers may be. They are in many files.
const MOST_AGE_OF_NAMES: Duration = Duration::from_secs(10);
/// How long an event waits for them. Afterwards it has those that were known before.
const PATIENCE_FOR_NAMES: Duration = Duration::from_millis(300);

pub(super) async fn get_rates(State(source): State<Source>, asked: Asked) -> Response {
    let (options, _) = match options::<RateOptions>(&source, asked, &[]) {
        Ok(parsed) => parsed,
        Err(refusal) => return *refusal,
    };
    if !source.is_live {
        return error_answer(StatusCode::NOT_FOUND, source.without_live_figures());
    }
    let containers = if options.containers.is_empty() {
        Vec::new()
    } else {
        match source.resolved(options.containers.clone()).await {
            Ok(containers) => containers,
            Err(error) => return error_answer(status_of(&error), &format!("{error:#}")),
        }
    };
    let Some(listener) = source.rates.listen() else {
        return try_again(&format!(
            "{MOST_LISTENERS} clients listen to the rates already; close one of them"
        ));
    };
    let (events, answer) = event_stream::open();
    let wanted = Wanted {
        selection: options.selection(containers),
        count: options.count.into(),
        class_names: Arc::clone(&source.class_names),
        container_names: source.container_names.clone(),
    };
    tokio::spawn(send(listener, events, wanted));
    answer
}

/// What a client listens to.
struct Wanted {
    selection: Selection,
    /// Most rows.
    count: usize,
    class_names: Arc<ReadNames>,
    container_names: Cached<ContainerNames>,
}

/// Sends an event for each reading until the client goes.
async fn send(mut listener: Listener, events: mpsc::Sender<String>, wanted: Wanted) {
    let wanted = Arc::new(wanted);
    let mut containers = Arc::default();
    loop {
        let reading = tokio::select! {
            () = events.closed() => return,
            reading = listener.next() => reading,
        };
        let Some(reading) = reading else { return };
        // Without names there are ids: neither a file that cannot be read nor one that hangs ends the rates.
        let names = wanted.container_names.get(MOST_AGE_OF_NAMES);
        if let Ok(Ok(names)) = time::timeout(PATIENCE_FOR_NAMES, names).await {
            containers = names;
        }
        let (wanted, containers) = (Arc::clone(&wanted), Arc::clone(&containers));
        // A large node has thousands of counters.
        let Ok(event) = task::spawn_blocking(move || event(&reading, &wanted, &containers)).await else {
            return;
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

fn event(reading: &Reading, wanted: &Wanted, containers: &ContainerNames) -> String {
    let selection = &wanted.selection;
    let rates = match reading {
        Ok((earlier, later)) => {
            let by_class =
                live_rates::between(earlier, later, &Selection { by_class: true, ..selection.clone() });
            let rows = (!selection.by_class).then(|| live_rates::between(earlier, later, selection));
            render::event(
                rows.as_ref().unwrap_or(&by_class),
                &by_class,
                wanted.count,
                (&(wanted.class_names)(), containers),
            )
        }
        Err(error) => Err(anyhow::anyhow!("{error}")),
    };
    match rates {
        Ok(document) => event_stream::event("rates", &document),
        Err(error) => event_stream::event("failed", &failure(&format!("{error:#}"))),
    }
}

fn failure(error: &str) -> String {
    #[derive(serde::Serialize)]
    struct Failure<'a> {
        error: &'a str,
    }
    json::line(&Failure { error }).unwrap_or_default()
}
