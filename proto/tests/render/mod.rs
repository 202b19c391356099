//! Writes a protobuf package down as text, one line per fact, in the notation of the fixtures.
//!
//! Services first, then top-level enums, then messages with what is nested in them, then extensions; within each, the
//! order of the `.proto` file. Extensions are sorted by what they extend. Every option that is set and is an extension
//! is shown, so one that is set by mistake is a difference too. Comments, reserved ranges and standard options are not
//! facts.

use prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, ServiceDescriptor,
};

/// The facts of `package`, one per line.
pub fn package(pool: &DescriptorPool, package: &str) -> String {
    let mut text = Text {
        prefix: format!("{package}."),
        out: String::new(),
    };
    let files: Vec<_> = pool.files().filter(|file| file.package_name() == package).collect();
    files
        .iter()
        .flat_map(|file| file.services())
        .for_each(|service| text.service(&service));
    files
        .iter()
        .flat_map(|file| file.enums())
        .for_each(|item| text.enumeration(&item));
    files
        .iter()
        .flat_map(|file| file.messages())
        .for_each(|message| text.message(&message));
    let mut extensions: Vec<_> = files.iter().flat_map(|file| file.extensions()).collect();
    extensions.sort_by(|a, b| {
        a.containing_message()
            .full_name()
            .cmp(b.containing_message().full_name())
    });
    for extension in extensions {
        let (extended, name, number) = (extension.containing_message(), extension.name(), extension.number());
        text.line(format!(
            "extend {} {name} = {number} : {}",
            extended.full_name(),
            text.kind(&extension.kind())
        ));
    }
    text.out
}

struct Text {
    prefix: String,
    out: String,
}

impl Text {
    fn line(&mut self, line: impl AsRef<str>) {
        self.out.push_str(line.as_ref());
        self.out.push('\n');
    }

    fn local<'a>(&self, full_name: &'a str) -> &'a str {
        full_name.strip_prefix(&self.prefix).unwrap_or(full_name)
    }

    fn service(&mut self, service: &ServiceDescriptor) {
        self.line(format!("service {}{}", service.name(), flags(&service.options())));
        for method in service.methods() {
            let stream = |streaming| if streaming { "stream " } else { "" };
            let (input, output) = (method.input(), method.output());
            self.line(format!(
                "  rpc {}.{}({}{}) returns {}{}{}",
                service.name(),
                method.name(),
                stream(method.is_client_streaming()),
                self.local(input.full_name()),
                stream(method.is_server_streaming()),
                self.local(output.full_name()),
                flags(&method.options()),
            ));
        }
    }

    fn message(&mut self, message: &MessageDescriptor) {
        if message.is_map_entry() {
            return;
        }
        let name = self.local(message.full_name()).to_owned();
        self.line(format!("message {name}{}", values(&message.options())));
        // In the order of the file: the descriptor sorts them by number.
        for proto in &message.descriptor_proto().field {
            let field = message.get_field_by_name(proto.name()).expect("the message lists it");
            self.field(&name, &field);
        }
        message.child_messages().for_each(|child| self.message(&child));
        message.child_enums().for_each(|child| self.enumeration(&child));
    }

    fn field(&mut self, message: &str, field: &FieldDescriptor) {
        let label = match () {
            () if field.is_map() => "",
            () if field.is_list() => "repeated ",
            () if field.field_descriptor_proto().proto3_optional() => "optional ",
            () => "",
        };
        let oneof = match field.containing_oneof() {
            Some(oneof) if !oneof.is_synthetic() => format!(" oneof={}", oneof.name()),
            _ => String::new(),
        };
        let (name, number, kind) = (field.name(), field.number(), self.kind(&field.kind()));
        self.line(format!(
            "  {message}.{name} = {number} : {label}{kind}{oneof}{}",
            flags(&field.options())
        ));
    }

    fn kind(&self, kind: &Kind) -> String {
        match kind {
            Kind::Message(entry) if entry.is_map_entry() => {
                let (key, value) = (entry.map_entry_key_field(), entry.map_entry_value_field());
                format!("map<{},{}>", self.kind(&key.kind()), self.kind(&value.kind()))
            }
            Kind::Message(message) => self.local(message.full_name()).to_owned(),
            Kind::Enum(item) => self.local(item.full_name()).to_owned(),
            scalar => format!("{scalar:?}"),
        }
    }

    fn enumeration(&mut self, item: &EnumDescriptor) {
        let name = self.local(item.full_name()).to_owned();
        self.line(format!("enum {name}{}", values(&item.options())));
        // As with fields, the order of the file.
        for proto in &item.enum_descriptor_proto().value {
            let value = item.get_value_by_name(proto.name()).expect("the enum lists it");
            self.line(format!(
                "  {name}.{} = {}{}",
                value.name(),
                value.number(),
                flags(&value.options())
            ));
        }
    }
}

/// Extension options by name, sorted; one that is set to anything but true with its value.
fn flags(options: &DynamicMessage) -> String {
    bracketed(options, |name, value| {
        if value == "true" {
            name.to_owned()
        } else {
            format!("{name}={value}")
        }
    })
}

/// Extension options by name, sorted, each with its value.
fn values(options: &DynamicMessage) -> String {
    bracketed(options, |name, value| format!("{name}={value}"))
}

fn bracketed(options: &DynamicMessage, show: impl Fn(&str, &str) -> String) -> String {
    let mut shown: Vec<_> = options
        .extensions()
        .map(|(extension, value)| show(extension.name(), &value.to_string()))
        .collect();
    shown.sort();
    if shown.is_empty() {
        String::new()
    } else {
        format!("  [{}]", shown.join(" "))
    }
}
