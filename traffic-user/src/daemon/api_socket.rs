//! The socket of the API: bound as soon as that is possible, and moved when the configuration changes.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::time::{self, Instant};

use crate::{
    api::{self, Access, Server, Source, Unusable},
    config::{Config, Listen},
    health::{Backoff, Components, Part},
};

/// How soon, and how rarely, binding is tried again.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// The API's socket, if one is configured.
pub(super) struct ApiSocket {
    source: Source,
    components: Arc<Components>,
    wanted: Option<Listen>,
    /// The file with the token that requests must carry.
    token_file: Option<PathBuf>,
    access: Access,
    /// What is served, and where. It may still be the former place.
    serving: Option<(Listen, Server)>,
    retry: Backoff,
}

impl ApiSocket {
    /// Serves nothing yet.
    pub(super) fn new(source: Source, components: Arc<Components>) -> Self {
        let retry = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
        let access = Access::default();
        Self { source, components, wanted: None, token_file: None, access, serving: None, retry }
    }

    /// Serves as a configuration says from now on, or not at all. A former socket is closed only when the new one
    /// is bound. The token is read again.
    pub(super) fn follow(&mut self, config: &Config) {
        self.wanted.clone_from(&config.api);
        self.token_file.clone_from(&config.api_token_file);
        self.retry.succeeded();
        self.retry();
    }

    /// Reads the token. Returns whether it, or the one before, may be served under.
    fn read_token(&mut self) -> Result<(), Unusable> {
        self.access.follow(self.token_file.as_deref())
    }

    /// Waits until binding should be tried again. Never returns if it need not be.
    pub(super) async fn due(&self) {
        match self.retry.due() {
            Some(due) => time::sleep_until(Instant::from_std(due)).await,
            None => std::future::pending().await,
        }
    }

    /// Tries to serve where it is wanted.
    pub(super) fn retry(&mut self) {
        let Some(wanted) = &self.wanted else {
            self.retry.succeeded();
            self.components.disabled(Part::Api);
            self.stop_serving();
            return;
        };
        let wanted = wanted.clone();
        let token = self.read_token();
        if let Err(unusable) = &token
            && !unusable.kept
        {
            // Without its token, nothing may be read.
            self.stop_serving();
            self.components.failed(Part::Api, &unusable.error);
            self.retry.failed(std::time::Instant::now());
            return;
        }
        if self.serving.as_ref().is_none_or(|(place, _)| *place != wanted) {
            let (source, access) = (self.source.clone(), self.access.clone());
            let bound = api::bind_to(&wanted).and_then(|bound| Ok(Server::start(bound, source, access)?));
            match bound {
                Ok(server) => {
                    self.stop_serving();
                    self.serving = Some((wanted, server));
                }
                Err(error) => {
                    self.components.failed(Part::Api, &error);
                    self.retry.failed(std::time::Instant::now());
                    return;
                }
            }
        }
        if let Err(unusable) = token {
            self.components.failed(Part::Api, &unusable.error);
            self.retry.failed(std::time::Instant::now());
            return;
        }
        self.retry.succeeded();
        self.components.works(Part::Api);
    }

    /// Binds again what was removed or replaced, as cleaners of directories do.
    pub(super) fn check(&mut self) {
        let Some((_, server)) = self.serving.as_mut().filter(|(_, server)| !server.is_reachable()) else {
            return;
        };
        server.give_up_path();
        tracing::warn!("the socket of the API was removed or replaced; binding it again");
        self.stop_serving();
        self.retry();
    }

    /// Answers the requests in progress in the background.
    fn stop_serving(&mut self) {
        if let Some((_, server)) = self.serving.take() {
            tokio::spawn(server.stop());
        }
    }

    /// Stops for good, after the requests in progress.
    pub(super) async fn stop(self) {
        if let Some((_, server)) = self.serving {
            server.stop().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::net::UnixStream, path::Path};

    use super::*;
    use crate::health::State;

    fn socket(components: &Arc<Components>) -> ApiSocket {
        let source = Source::new(|| anyhow::bail!("no counters"), None);
        ApiSocket::new(source, Arc::clone(components))
    }

    fn at(place: Option<Listen>) -> Config {
        Config { api: place, ..Config::parse("", Path::new("t.toml")).unwrap() }
    }

    fn state(components: &Components) -> (State, u64) {
        let api = components.read().remove(0);
        (api.state, api.failures)
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_socket_that_was_removed_is_bound_again() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("api");
        let components = Arc::new(Components::default());
        let mut api = socket(&components);
        api.follow(&at(Some(Listen::Unix(place.clone()))));
        api.check();
        fs::remove_file(&place).unwrap();
        api.check();
        // The former server ends, and must not take the new socket along.
        time::sleep(Duration::from_millis(50)).await;
        assert!(UnixStream::connect(&place).is_ok() && state(&components) == (State::Ok, 0));
        api.stop().await;
        assert!(!place.exists());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_former_socket_is_closed_only_when_the_new_one_is_bound() {
        let directory = tempfile::tempdir().unwrap();
        let (old, new) = (directory.path().join("old"), directory.path().join("new"));
        let answers = |path: &Path| UnixStream::connect(path).is_ok();
        let components = Arc::new(Components::default());
        let mut api = socket(&components);
        api.follow(&at(None));
        assert_eq!(state(&components), (State::Disabled, 0));
        api.follow(&at(Some(Listen::Unix(old.clone()))));
        assert!(answers(&old) && state(&components) == (State::Ok, 0));

        // Another program's file is in the way.
        fs::write(&new, "").unwrap();
        api.follow(&at(Some(Listen::Unix(new.clone()))));
        assert!(answers(&old), "the old socket is closed although there is no new one");
        assert_eq!(state(&components), (State::Failing, 1));
        fs::remove_file(&new).unwrap();
        api.due().await;
        api.retry();
        assert!(answers(&new) && state(&components) == (State::Ok, 0));
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        assert!(!old.exists(), "the old socket is left behind");

        // Back before the new place could be bound: the present socket stays.
        fs::write(&old, "").unwrap();
        api.follow(&at(Some(Listen::Unix(old))));
        assert_eq!(state(&components), (State::Failing, 1));
        api.follow(&at(Some(Listen::Unix(new.clone()))));
        assert!(answers(&new) && state(&components) == (State::Ok, 0));
        api.follow(&at(None));
        assert_eq!(state(&components), (State::Disabled, 0));
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        assert!(!new.exists());
    }
}
