//! The objects of the cluster: k8s-openapi types behind one enum, shared by reference.
//!
//! Every store, cache and watch event holds the same `Arc`; a write replaces it. The snapshot kinds are ours (`snapshot.rs`), because k8s-openapi
//! has no types for custom resources. Kinds that no modelled process reads are absent: applying one is refused where manifests are read.

use std::cmp::Ordering;
use std::fmt;
use std::sync::{Arc, OnceLock};

use k8s_openapi::api::core::v1::{
    ConfigMap, Event, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Secret, ServiceAccount,
};
use k8s_openapi::api::storage::v1::{
    CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment, VolumeAttributesClass,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::snapshot::{VolumeSnapshot, VolumeSnapshotClass, VolumeSnapshotContent};

/// A Kubernetes type that the API server stores.
pub trait Resource: Clone + PartialEq + fmt::Debug + Send + Sync + 'static {
    /// Which kind it is.
    const KIND: Kind;
    /// Its metadata.
    fn meta(&self) -> &ObjectMeta;
    /// Its metadata, to be changed.
    fn meta_mut(&mut self) -> &mut ObjectMeta;
    /// Puts it into the enum.
    fn into_object(this: Arc<Self>) -> Object;
    /// Takes it out of the enum, if it is of this kind.
    fn from_object(object: &Object) -> Option<&Arc<Self>>;

    /// Namespace and name.
    fn key(&self) -> ObjKey {
        ObjKey::of(self.meta())
    }
}

macro_rules! kinds {
    ($($kind:ident $scope:ident $group:literal $plural:literal $short:literal,)*) => {
        /// The kinds of object that the API server stores.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[expect(missing_docs, reason = "each is the Kubernetes kind of that name")]
        pub enum Kind { $($kind,)* }

        impl Kind {
            /// Every kind, in a fixed order.
            pub const ALL: &[Kind] = &[$(Kind::$kind,)*];
            /// The name in a manifest, e.g. `PersistentVolumeClaim`.
            pub fn name(self) -> &'static str { match self { $(Kind::$kind => stringify!($kind),)* } }
            /// The `apiVersion` in a manifest, e.g. `storage.k8s.io/v1`.
            pub fn api_version(self) -> &'static str { match self { $(Kind::$kind => $group,)* } }
            /// The plural in URLs and messages, e.g. `persistentvolumeclaims`.
            pub fn plural(self) -> &'static str { match self { $(Kind::$kind => $plural,)* } }
            /// The short name in traces, e.g. `pvc`.
            pub fn short(self) -> &'static str { match self { $(Kind::$kind => $short,)* } }
            /// Whether objects of this kind live in a namespace.
            pub fn namespaced(self) -> bool { match self { $(Kind::$kind => kinds!(@scope $scope),)* } }
        }

        /// One object of any kind.
        #[derive(Clone, PartialEq)]
        #[expect(missing_docs, reason = "each holds the Kubernetes object of that kind")]
        pub enum Object { $($kind(Arc<$kind>),)* }

        /// Everything but the data of Secrets.
        impl fmt::Debug for Object {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                if self.kind() == Kind::Secret {
                    return write!(f, "Secret({:?}, ***stripped***)", self.key());
                }
                match self {
                    $(Object::$kind(object) => object.fmt(f),)*
                }
            }
        }

        impl Object {
            /// Which kind it is.
            pub fn kind(&self) -> Kind { match self { $(Object::$kind(_) => Kind::$kind,)* } }
            /// Its metadata.
            pub fn meta(&self) -> &ObjectMeta { match self { $(Object::$kind(o) => &o.metadata,)* } }
            /// Its metadata, to be changed; copies the object if it is shared.
            pub fn meta_mut(&mut self) -> &mut ObjectMeta { match self { $(Object::$kind(o) => &mut Arc::make_mut(o).metadata,)* } }
            /// Reads an object of `kind` from JSON.
            ///
            /// # Errors
            /// What serde says of a wrong shape. Unknown fields are not noticed here but where manifests are read.
            pub fn from_json(kind: Kind, json: serde_json::Value) -> Result<Object, serde_json::Error> {
                Ok(match kind { $(Kind::$kind => Object::$kind(Arc::new(serde_json::from_value::<$kind>(json)?)),)* })
            }
            /// The object as JSON, with `apiVersion` and `kind`.
            pub fn to_json(&self) -> serde_json::Value {
                let json = match self { $(Object::$kind(o) => serde_json::to_value(&**o),)* };
                let mut json = json.expect("Kubernetes types always serialise");
                // Types of k8s-openapi say what they are; the snapshot kinds, being ours, do not.
                if let serde_json::Value::Object(fields) = &mut json {
                    for (name, value) in [("apiVersion", self.kind().api_version()), ("kind", self.kind().name())] {
                        fields.entry(name).or_insert_with(|| value.into());
                    }
                }
                json
            }
        }

        $(impl Resource for $kind {
            const KIND: Kind = Kind::$kind;
            fn meta(&self) -> &ObjectMeta { &self.metadata }
            fn meta_mut(&mut self) -> &mut ObjectMeta { &mut self.metadata }
            fn into_object(this: Arc<Self>) -> Object { Object::$kind(this) }
            fn from_object(object: &Object) -> Option<&Arc<Self>> {
                match object { Object::$kind(o) => Some(o), _ => None }
            }
        })*
    };
    (@scope cluster) => { false };
    (@scope namespace) => { true };
}

kinds! {
    Namespace cluster "v1" "namespaces" "ns",
    Node cluster "v1" "nodes" "node",
    Pod namespace "v1" "pods" "pod",
    PersistentVolumeClaim namespace "v1" "persistentvolumeclaims" "pvc",
    PersistentVolume cluster "v1" "persistentvolumes" "pv",
    Event namespace "v1" "events" "event",
    Secret namespace "v1" "secrets" "secret",
    ConfigMap namespace "v1" "configmaps" "cm",
    ServiceAccount namespace "v1" "serviceaccounts" "sa",
    StorageClass cluster "storage.k8s.io/v1" "storageclasses" "sc",
    VolumeAttachment cluster "storage.k8s.io/v1" "volumeattachments" "va",
    CSINode cluster "storage.k8s.io/v1" "csinodes" "csinode",
    CSIDriver cluster "storage.k8s.io/v1" "csidrivers" "csidriver",
    CSIStorageCapacity namespace "storage.k8s.io/v1" "csistoragecapacities" "csisc",
    VolumeAttributesClass cluster "storage.k8s.io/v1" "volumeattributesclasses" "vac",
    VolumeSnapshot namespace "snapshot.storage.k8s.io/v1" "volumesnapshots" "vs",
    VolumeSnapshotContent cluster "snapshot.storage.k8s.io/v1" "volumesnapshotcontents" "vsc",
    VolumeSnapshotClass cluster "snapshot.storage.k8s.io/v1" "volumesnapshotclasses" "vsclass",
}

/// Namespace and name of an object; the namespace is empty for kinds of the whole cluster.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ObjKey {
    /// The namespace, or empty.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

impl ObjKey {
    /// The key of an object in a namespace.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> ObjKey {
        ObjKey {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The key of an object of the whole cluster.
    pub fn cluster(name: impl Into<Arc<str>>) -> ObjKey {
        static NOWHERE: OnceLock<Arc<str>> = OnceLock::new();
        ObjKey {
            namespace: Arc::clone(NOWHERE.get_or_init(|| Arc::from(""))),
            name: name.into(),
        }
    }

    /// The key that the metadata spells.
    pub fn of(meta: &ObjectMeta) -> ObjKey {
        ObjKey::new(
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        )
    }
}

impl Ord for ObjKey {
    /// By namespace, then by name. Keys of stored objects share their namespace, which spares most comparisons.
    fn cmp(&self, other: &ObjKey) -> Ordering {
        if Arc::ptr_eq(&self.namespace, &other.namespace) {
            return self.name.cmp(&other.name);
        }
        let namespaces = self.namespace.cmp(&other.namespace);
        namespaces.then_with(|| self.name.cmp(&other.name))
    }
}

impl PartialOrd for ObjKey {
    fn partial_cmp(&self, other: &ObjKey) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for ObjKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

impl fmt::Debug for ObjKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Kind, namespace and name of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// The kind.
    pub kind: Kind,
    /// Namespace and name.
    pub key: ObjKey,
}

impl ObjectRef {
    /// The object of this kind with this key.
    pub fn new(kind: Kind, key: ObjKey) -> ObjectRef {
        ObjectRef { kind, key }
    }

    /// The object of `T`'s kind with this key.
    pub fn to<T: Resource>(key: &ObjKey) -> ObjectRef {
        ObjectRef {
            kind: T::KIND,
            key: key.clone(),
        }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.short(), self.key)
    }
}

impl Object {
    /// Wraps a Kubernetes value.
    pub fn new<T: Resource>(value: T) -> Object {
        T::into_object(Arc::new(value))
    }

    /// The value inside, if it is a `T`.
    pub fn get<T: Resource>(&self) -> Option<&Arc<T>> {
        T::from_object(self)
    }

    /// Namespace and name.
    pub fn key(&self) -> ObjKey {
        ObjKey::of(self.meta())
    }

    /// Kind, namespace and name.
    pub fn to_ref(&self) -> ObjectRef {
        ObjectRef {
            kind: self.kind(),
            key: self.key(),
        }
    }

    /// The UID, or empty before the API server gave one.
    pub fn uid(&self) -> &str {
        self.meta().uid.as_deref().unwrap_or_default()
    }

    /// The resourceVersion as a number, 0 when unset.
    pub fn version(&self) -> u64 {
        version(self.meta())
    }
}

/// The resourceVersion as a number, 0 when unset or foreign.
pub fn version(meta: &ObjectMeta) -> u64 {
    meta.resource_version
        .as_deref()
        .and_then(|v| v.parse().ok())
        .unwrap_or(0)
}
