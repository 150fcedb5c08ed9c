//! What an ADD says it made: interfaces, addresses, routes, DNS. Plugins are not trusted to get it
//! right, so this is tolerant of every version's shape and of what is missing, and of nothing else.

use std::net::IpAddr;

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

/// The result of an ADD, of any version of the specification.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub interfaces: Vec<Interface>,
    /// In the order in which the plugin gave them: the first is the primary one.
    pub addresses: Vec<Address>,
    pub routes: Vec<Route>,
    pub dns: Dns,
}

/// An interface that a plugin made, inside the sandbox or on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Interface {
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub mac: String,
    /// The namespace's path, or the hypervisor's name for the sandbox; empty on the host.
    #[serde(default, deserialize_with = "or_default")]
    pub sandbox: String,
    /// In bytes, if the plugin says so.
    #[serde(default)]
    pub mtu: Option<u32>,
}

/// An address with the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    pub ip: IpAddr,
    /// In bits.
    pub prefix: u8,
    pub gateway: Option<IpAddr>,
    /// Which of the interfaces it belongs to, if the plugin says so.
    pub interface: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    pub to: IpAddr,
    /// In bits; 0 for the default route.
    pub prefix: u8,
    pub gateway: Option<IpAddr>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Dns {
    #[serde(default, deserialize_with = "or_default")]
    pub nameservers: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub domain: String,
    #[serde(default, deserialize_with = "or_default")]
    pub search: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub options: Vec<String>,
}

/// A plugin's result is not one.
#[derive(Debug, thiserror::Error)]
pub enum BadResult {
    #[error("it printed nothing")]
    Empty,
    #[error("it printed something else than a result")]
    NotJson(#[source] serde_json::Error),
    #[error("it printed {0}, which is no result")]
    NotOne(&'static str),
    #[error("{0:?} is not an address with a prefix length")]
    BadAddress(String),
    #[error("an address belongs to interface {0}, of which there are only {1}")]
    NoSuchInterface(i64, usize),
}

/// Parses what a plugin printed on ADD.
///
/// # Errors
/// What is wrong with it. Nothing in it is believed before it parsed.
pub fn parse_result(bytes: &[u8]) -> Result<Outcome, BadResult> {
    Outcome::of(&to_json(bytes)?)
}

/// What a plugin printed, as the JSON object it must be.
pub(crate) fn to_json(bytes: &[u8]) -> Result<Value, BadResult> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(BadResult::Empty);
    }
    let value: Value = serde_json::from_slice(bytes).map_err(BadResult::NotJson)?;
    match &value {
        Value::Object(all) if all.contains_key("code") && all.contains_key("msg") => {
            Err(BadResult::NotOne("an error, yet ended well"))
        }
        Value::Object(_) => Ok(value),
        _ => Err(BadResult::NotOne("JSON that is not an object")),
    }
}

impl Outcome {
    /// Reads a result that is JSON already, as a record keeps it.
    ///
    /// # Errors
    /// As [`parse_result`].
    pub fn of(result: &Value) -> Result<Outcome, BadResult> {
        let raw = Raw::deserialize(result).map_err(BadResult::NotJson)?;
        let mut outcome =
            Outcome { interfaces: raw.interfaces, dns: raw.dns, ..Outcome::default() };
        for ip in raw.ips {
            outcome.addresses.push(ip.address(outcome.interfaces.len())?);
        }
        outcome.routes = raw.routes.into_iter().map(RawRoute::route).collect::<Result<_, _>>()?;
        for family in [raw.ip4, raw.ip6].into_iter().flatten() {
            outcome.addresses.push(family.ip.address(0)?);
            for route in family.routes {
                outcome.routes.push(route.route()?);
            }
        }
        Ok(outcome)
    }

    /// The addresses of the sandbox's interface `ifname`, the primary one first. An address of no
    /// interface in particular counts: there is no other that it could be of.
    pub fn pod_ips(&self, ifname: &str) -> Vec<IpAddr> {
        let is_ours = |address: &&Address| match address.interface {
            None => true,
            Some(at) => self.interfaces.get(at).is_some_and(|i| self.is_sandboxed(i, ifname)),
        };
        self.addresses.iter().filter(is_ours).map(|address| address.ip).collect()
    }

    /// Some plugins leave `sandbox` out altogether; then the name has to do.
    fn is_sandboxed(&self, interface: &Interface, ifname: &str) -> bool {
        let told = self.interfaces.iter().any(|i| !i.sandbox.is_empty());
        interface.name == ifname && (!told || !interface.sandbox.is_empty())
    }
}

/// Every version's fields. Until 0.2.0 there was at most one address of each family.
#[derive(Deserialize)]
struct Raw {
    #[serde(default, deserialize_with = "or_default")]
    interfaces: Vec<Interface>,
    #[serde(default, deserialize_with = "or_default")]
    ips: Vec<RawIp>,
    #[serde(default, deserialize_with = "or_default")]
    routes: Vec<RawRoute>,
    #[serde(default, deserialize_with = "or_default")]
    dns: Dns,
    #[serde(default)]
    ip4: Option<RawFamily>,
    #[serde(default)]
    ip6: Option<RawFamily>,
}

#[derive(Deserialize)]
struct RawFamily {
    #[serde(flatten)]
    ip: RawIp,
    #[serde(default, deserialize_with = "or_default")]
    routes: Vec<RawRoute>,
}

#[derive(Deserialize)]
struct RawIp {
    #[serde(alias = "ip")]
    address: String,
    #[serde(default, deserialize_with = "or_default")]
    gateway: String,
    #[serde(default)]
    interface: Option<i64>,
}

#[derive(Deserialize)]
struct RawRoute {
    dst: String,
    #[serde(default, deserialize_with = "or_default")]
    gw: String,
}

impl RawIp {
    fn address(self, interfaces: usize) -> Result<Address, BadResult> {
        let (ip, prefix) = subnet(&self.address)?;
        let interface = match self.interface {
            // Below zero is how some say "none".
            None | Some(i64::MIN..0) => None,
            Some(at) => match usize::try_from(at) {
                Ok(at) if at < interfaces => Some(at),
                _ => return Err(BadResult::NoSuchInterface(at, interfaces)),
            },
        };
        Ok(Address { ip, prefix, gateway: gateway(&self.gateway)?, interface })
    }
}

impl RawRoute {
    fn route(self) -> Result<Route, BadResult> {
        let (to, prefix) = subnet(&self.dst)?;
        Ok(Route { to, prefix, gateway: gateway(&self.gw)? })
    }
}

fn subnet(text: &str) -> Result<(IpAddr, u8), BadResult> {
    let parsed = text.split_once('/').and_then(|(ip, prefix)| {
        let ip: IpAddr = ip.parse().ok()?;
        let prefix: u8 = prefix.parse().ok()?;
        (prefix <= if ip.is_ipv4() { 32 } else { 128 }).then_some((ip, prefix))
    });
    parsed.ok_or_else(|| bad_address(text))
}

fn gateway(text: &str) -> Result<Option<IpAddr>, BadResult> {
    match text {
        "" => Ok(None),
        _ => text.parse().map(Some).map_err(|_| bad_address(text)),
    }
}

fn bad_address(text: &str) -> BadResult {
    BadResult::BadAddress(text.chars().take(80).collect())
}

/// Plugins in Go print `null` for a list that is empty.
fn or_default<'de, T: Default + DeserializeOwned, D: Deserializer<'de>>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

#[cfg(test)]
mod tests;
