//! A transient scope, in the words of systemd's properties.

use zbus::Variant;

/// A property of a unit, as `org.freedesktop.systemd1(5)` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    pub name: &'static str,
    pub value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Bool(bool),
    Number(u64),
    Text(String),
    Bytes(Vec<u8>),
    Pids(Vec<u32>),
}

impl Property {
    pub fn new(name: &'static str, value: Value) -> Self {
        Self { name, value }
    }

    pub(crate) fn on_the_wire(&self) -> (&'static str, Variant<'static>) {
        let value = match self.value.clone() {
            Value::Bool(value) => Variant::from(value),
            Value::Number(value) => Variant::from(value),
            Value::Text(value) => Variant::from(value),
            Value::Bytes(value) => Variant::from(value),
            Value::Pids(value) => Variant::from(value),
        };
        (self.name, value)
    }
}

/// A scope whose cgroup is its maker's to divide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// `x.scope`.
    pub name: String,
    /// The name of the slice that it is in. One that is not there is made.
    pub slice: String,
    pub description: String,
    /// The process that is put into it.
    pub pid: u32,
    /// Its limits.
    pub limits: Vec<Property>,
}

/// Since systemd 253, which would else stop a scope in which the kernel has killed for want of memory.
pub(crate) const OOM_POLICY: &str = "OOMPolicy";

impl Scope {
    pub(crate) fn properties(&self, knows_oom_policy: bool) -> Vec<Property> {
        let text = |text: &str| Value::Text(text.to_owned());
        let mut all = vec![
            Property::new("Description", text(&self.description)),
            Property::new("Slice", text(&self.slice)),
            Property::new("PIDs", Value::Pids(vec![self.pid])),
            Property::new("Delegate", Value::Bool(true)),
            // It goes by our hand, not before others when the machine goes down.
            Property::new("DefaultDependencies", Value::Bool(false)),
            Property::new("CollectMode", text("inactive-or-failed")),
            Property::new("TasksMax", Value::Number(u64::MAX)),
        ];
        if knows_oom_policy {
            all.push(Property::new(OOM_POLICY, text("continue")));
        }
        // The last of one name counts.
        all.extend(self.limits.iter().cloned());
        all
    }
}
