//! The HTTP clients of a sender: one for each scheme and reach, because their proxies and address checks differ.
//! They share one TLS configuration.

use std::sync::{Arc, PoisonError, RwLock};

use ureq::Agent;
use ureq::unversioned::transport::{
    ConnectProxyConnector, Connector, SocksConnector, TcpConnector,
};

use crate::Error;
use crate::config::Config;
use crate::progress::TrackProgress;
use crate::request::Reach;
use crate::resolve::{Cache, Names};
use crate::tls::TlsConnector;

/// The clients. Replacing them by new ones closes all idle connections.
pub(crate) struct Agents {
    config: Config,
    tls: TlsConnector,
    cache: Arc<Cache>,
    current: RwLock<Vec<Agent>>,
}

impl Agents {
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        let agents = Self {
            config: config.clone(),
            tls: TlsConnector::new(&config.roots)
                .map_err(|_| Error::Setting("TLS has no version in common with itself"))?,
            cache: Cache::new(config.lookup.clone()),
            current: RwLock::default(),
        };
        let built = agents.build()?;
        agents.replace(built);
        Ok(agents)
    }

    pub(crate) fn get(&self, is_https: bool, reach: Reach) -> Option<Agent> {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(index(is_https, reach))
            .cloned()
    }

    /// Closes all idle connections. ureq itself closes them only with a new request.
    pub(crate) fn forget_connections(&self) {
        if let Ok(built) = self.build() {
            self.replace(built);
        }
    }

    /// Breaks all connections, also those in use, for good.
    pub(crate) fn shut_down(&self) {
        for agent in self.replace(Vec::new()) {
            agent.shutdown();
        }
    }

    fn replace(&self, agents: Vec<Agent>) -> Vec<Agent> {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut current, agents)
    }

    fn build(&self) -> Result<Vec<Agent>, Error> {
        let mut agents = Vec::with_capacity(4);
        for (is_https, reach) in [
            (false, Reach::Anywhere),
            (false, Reach::PublicOnly),
            (true, Reach::Anywhere),
            (true, Reach::PublicOnly),
        ] {
            debug_assert_eq!(agents.len(), index(is_https, reach));
            agents.push(self.agent(is_https, reach)?);
        }
        Ok(agents)
    }

    fn agent(&self, is_https: bool, reach: Reach) -> Result<Agent, Error> {
        let Config {
            timeouts, proxies, ..
        } = &self.config;
        let is_checked = reach == Reach::PublicOnly;
        let proxy = proxies.build(is_https, is_checked)?;
        let connector =
            ().chain(SocksConnector::default())
                .chain(ConnectProxyConnector::default())
                .chain(TcpConnector::default())
                .chain(self.tls.clone())
                .chain(TrackProgress {
                    is_proxied: proxy.is_some(),
                });
        let names = Names {
            cache: Arc::clone(&self.cache),
            check: is_checked.then(|| Arc::clone(&self.config.address_check)),
        };
        let config = Agent::config_builder()
            .proxy(proxy)
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(self.config.user_agent.as_str())
            .timeout_resolve(Some(timeouts.resolve))
            .timeout_connect(Some(timeouts.connect))
            .timeout_send_request(Some(timeouts.send))
            .timeout_send_body(Some(timeouts.send))
            .timeout_recv_response(Some(timeouts.response))
            .timeout_recv_body(Some(timeouts.body))
            .max_idle_age(self.config.idle_age)
            .max_idle_connections(self.config.in_flight)
            .max_idle_connections_per_host(self.config.in_flight)
            .max_response_header_size(INPUT_BUFFER)
            .input_buffer_size(INPUT_BUFFER)
            .output_buffer_size(OUTPUT_BUFFER)
            .build();
        Ok(Agent::with_parts(config, connector, names))
    }
}

fn index(is_https: bool, reach: Reach) -> usize {
    usize::from(is_https) * 2 + usize::from(reach == Reach::PublicOnly)
}

/// Also the limit of a response's headers; Twilio's take 1 to 2 KiB. ureq wants 10 KiB at least.
const INPUT_BUFFER: usize = 12 * 1024;
/// Each line of a request's headers must fit; bodies go in pieces.
const OUTPUT_BUFFER: usize = 4 * 1024;
