//! Writes a parsed message as Rust: structs, defaults, bounded decoders, encoders.

use std::fmt::Write as _;

use super::schema::{Field, Kind, Message, Struct, Versions};

fn snake(name: &str) -> String {
    let mut out = String::new();
    for (i, c) in name.chars().enumerate() {
        if c.is_uppercase() && i > 0 {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}

/// A condition on `version`, or `None` if it holds in every valid version of the message.
fn condition(versions: Versions, message: &Message) -> Option<String> {
    let from = versions.from > message.valid.from;
    let to = versions.to < message.valid.to;
    match (from, to) {
        _ if versions == Versions::NONE => Some("false".into()),
        (false, false) => None,
        (true, false) => Some(format!("version >= {}", versions.from)),
        (false, true) => Some(format!("version <= {}", versions.to)),
        (true, true) => Some(format!(
            "({}..={}).contains(&version)",
            versions.from, versions.to
        )),
    }
}

fn always(condition: Option<String>) -> String {
    condition.unwrap_or_else(|| "true".into())
}

fn base_type(kind: &Kind) -> String {
    match kind {
        Kind::Bool => "bool".into(),
        Kind::Int8 => "i8".into(),
        Kind::Int16 => "i16".into(),
        Kind::Uint16 => "u16".into(),
        Kind::Int32 => "i32".into(),
        Kind::Int64 => "i64".into(),
        Kind::Float64 => "f64".into(),
        Kind::Uuid => "Uuid".into(),
        Kind::Text => "Text".into(),
        Kind::Bytes => "Bytes".into(),
        Kind::Struct(name) => name.clone(),
        Kind::Array(element) => format!("Vec<{}>", base_type(element)),
    }
}

fn is_nullable(field: &Field) -> bool {
    field.nullable != Versions::NONE
}

fn field_type(field: &Field) -> String {
    let base = base_type(&field.kind);
    if is_nullable(field) {
        format!("Option<{base}>")
    } else {
        base
    }
}

fn default_value(field: &Field) -> String {
    let value = match (&field.kind, field.default.as_deref()) {
        (_, Some("null")) => return "None".into(),
        (Kind::Text, Some(text)) => format!("Text::from_static({text:?})"),
        (_, Some(text)) => text.to_owned(),
        // Records that were never set are absent, everything else is empty.
        (Kind::Bytes, None) if is_nullable(field) => return "None".into(),
        (_, None) => "Default::default()".into(),
    };
    if is_nullable(field) {
        format!("Some({value})")
    } else {
        value
    }
}

/// The least bytes an element of this kind takes in any version: bounds allocations by what was received.
fn min_size(kind: &Kind, message: &Message) -> usize {
    match kind {
        Kind::Bool | Kind::Int8 => 1,
        Kind::Int16 | Kind::Uint16 => 2,
        Kind::Int32 => 4,
        Kind::Int64 | Kind::Float64 => 8,
        Kind::Uuid => 16,
        Kind::Text | Kind::Bytes | Kind::Array(_) => 1,
        Kind::Struct(name) => {
            let nested = message
                .structs
                .iter()
                .find(|s| s.name == *name)
                .expect("a declared struct");
            struct_min_size(nested, message)
        }
    }
}

fn struct_min_size(s: &Struct, message: &Message) -> usize {
    let in_version = |version: i16| -> usize {
        let counted = s.fields.iter().filter(|f| {
            f.versions.contains(version)
                && !f.tag.is_some_and(|(_, tagged)| tagged.contains(version))
        });
        counted
            .map(|f| {
                if is_nullable(f) {
                    1
                } else {
                    min_size(&f.kind, message)
                }
            })
            .sum()
    };
    (message.valid.from..=message.valid.to)
        .map(in_version)
        .min()
        .unwrap_or(0)
        .max(1)
}

fn read(kind: &Kind, message: &Message) -> String {
    match kind {
        Kind::Bool => "d.boolean()?".into(),
        Kind::Int8 => "d.i8()?".into(),
        Kind::Int16 => "d.i16()?".into(),
        Kind::Uint16 => "d.u16()?".into(),
        Kind::Int32 => "d.i32()?".into(),
        Kind::Int64 => "d.i64()?".into(),
        Kind::Float64 => "d.f64()?".into(),
        Kind::Uuid => "d.uuid()?".into(),
        Kind::Text => "d.text(flexible)?.ok_or(DecodeError::UnexpectedNull)?".into(),
        Kind::Bytes => "d.byte_string(flexible)?.ok_or(DecodeError::UnexpectedNull)?".into(),
        Kind::Struct(name) => format!("{name}::decode(d, version)?"),
        Kind::Array(_) => format!(
            "{}.ok_or(DecodeError::UnexpectedNull)?",
            read_nullable(kind, message)
        ),
    }
}

fn read_nullable(kind: &Kind, message: &Message) -> String {
    match kind {
        Kind::Text => "d.text(flexible)?".into(),
        Kind::Bytes => "d.byte_string(flexible)?".into(),
        Kind::Struct(name) => {
            format!("if d.i8()? < 0 {{ None }} else {{ Some({name}::decode(d, version)?) }}")
        }
        Kind::Array(element) => {
            format!(
                "d.array(flexible, {}, |d| Ok({}))?",
                min_size(element, message),
                read(element, message)
            )
        }
        _ => unreachable!("scalars are never nullable"),
    }
}

fn read_field(field: &Field, message: &Message) -> String {
    if !is_nullable(field) {
        return read(&field.kind, message);
    }
    let nullable = read_nullable(&field.kind, message);
    match condition(field.nullable, message) {
        None => nullable,
        Some(_) if matches!(field.kind, Kind::Struct(_)) => nullable,
        Some(when) => format!(
            "{{ let value = {nullable}; if value.is_none() && !({when}) {{ return Err(DecodeError::UnexpectedNull); }} value }}"
        ),
    }
}

fn write_value(kind: &Kind, place: &str) -> String {
    match kind {
        Kind::Bool => format!("e.boolean(*{place});"),
        Kind::Int8 => format!("e.i8(*{place});"),
        Kind::Int16 => format!("e.i16(*{place});"),
        Kind::Uint16 => format!("e.u16(*{place});"),
        Kind::Int32 => format!("e.i32(*{place});"),
        Kind::Int64 => format!("e.i64(*{place});"),
        Kind::Float64 => format!("e.f64(*{place});"),
        Kind::Uuid => format!("e.uuid({place});"),
        Kind::Text => format!("e.text(flexible, Some({place}))?;"),
        Kind::Bytes => format!("e.byte_string(flexible, Some({place}))?;"),
        Kind::Struct(_) => format!("{place}.encode(e, version)?;"),
        Kind::Array(element) => format!(
            "e.array_length(flexible, Some({place}.len()))?; for element in {place} {{ {} }}",
            write_value(element, "element")
        ),
    }
}

fn write_null(kind: &Kind) -> String {
    match kind {
        Kind::Text => "e.text(flexible, None)?;".into(),
        Kind::Bytes => "e.byte_string(flexible, None)?;".into(),
        Kind::Struct(_) => "e.i8(-1);".into(),
        _ => "e.array_length(flexible, None)?;".into(),
    }
}

fn write_field(field: &Field) -> String {
    let place = format!("self.{}", field.name);
    if !is_nullable(field) {
        return write_value(&field.kind, &format!("(&{place})"));
    }
    let present = match field.kind {
        Kind::Struct(_) => format!("e.i8(1); {}", write_value(&field.kind, "value")),
        _ => write_value(&field.kind, "value"),
    };
    format!(
        "match &{place} {{ Some(value) => {{ {present} }} None => {{ {} }} }}",
        write_null(&field.kind)
    )
}

fn decode_body(s: &Struct, message: &Message) -> String {
    let mut out = String::new();
    for field in &s.fields {
        let read = read_field(field, message);
        let mut when = vec![];
        when.extend(condition(field.versions, message));
        if let Some((_, tagged)) = field.tag {
            when.push(format!("!({})", always(condition(tagged, message))));
        }
        let line = format!("out.{} = {read};", field.name);
        if when.is_empty() {
            writeln!(out, "{line}").expect("a string takes all");
        } else {
            writeln!(out, "if {} {{ {line} }}", when.join(" && ")).expect("a string takes all");
        }
    }
    if message.flexible != Versions::NONE {
        out.push_str("if flexible { d.tagged_fields(|tag, d| { match tag {\n");
        for field in &s.fields {
            if let Some((tag, _)) = field.tag {
                let when = always(condition(field.versions, message));
                let read = read_field(field, message);
                writeln!(
                    out,
                    "{tag} if {when} => {{ out.{} = {read}; Ok(true) }}",
                    field.name
                )
                .expect("a string takes all");
            }
        }
        out.push_str("_ => { let _ = d; Ok(false) } } })?; }\n");
    }
    out
}

fn encode_body(s: &Struct, message: &Message) -> String {
    let mut out = String::new();
    for field in &s.fields {
        let mut when = vec![];
        when.extend(condition(field.versions, message));
        if let Some((_, tagged)) = field.tag {
            when.push(format!("!({})", always(condition(tagged, message))));
        }
        let write = write_field(field);
        if when.is_empty() {
            writeln!(out, "{write}").expect("a string takes all");
        } else {
            writeln!(out, "if {} {{ {write} }}", when.join(" && ")).expect("a string takes all");
        }
    }
    if message.flexible != Versions::NONE {
        let mut tagged: Vec<&Field> = s.fields.iter().filter(|f| f.tag.is_some()).collect();
        tagged.sort_by_key(|f| f.tag.map(|(tag, _)| tag));
        out.push_str("if flexible { let mut tagged = TaggedFields::default();\n");
        for field in tagged {
            let (tag, versions) = field.tag.expect("only tagged fields are left");
            writeln!(
                out,
                "if {} && self.{} != {} {{ tagged.add({tag}, |e| {{ {} Ok(()) }})?; }}",
                always(condition(versions, message)),
                field.name,
                tagged_default(field),
                write_field(field)
            )
            .expect("a string takes all");
        }
        out.push_str("tagged.write(e)?; }\n");
    }
    out
}

fn tagged_default(field: &Field) -> String {
    match &field.kind {
        Kind::Struct(name) if !is_nullable(field) => format!("{name}::default()"),
        Kind::Array(_) if !is_nullable(field) => "Vec::new()".into(),
        Kind::Uuid => "Uuid::default()".into(),
        Kind::Bool => "false".into(),
        _ => match default_value(field).as_str() {
            "Default::default()" if matches!(field.kind, Kind::Text) => "Text::default()".into(),
            "Default::default()" => "0".into(),
            value => value.to_owned(),
        },
    }
}

fn structure(s: &Struct, message: &Message) -> String {
    let name = &s.name;
    let mut out = String::new();
    let flexible = always(condition(message.flexible, message));
    let mut write = |line: String| writeln!(out, "{line}").expect("a string takes all");
    write(format!(
        "#[derive(Clone, Debug, PartialEq)] pub struct {name} {{"
    ));
    for field in &s.fields {
        write(format!("pub {}: {},", field.name, field_type(field)));
    }
    write(format!(
        "}} impl Default for {name} {{ fn default() -> Self {{ Self {{"
    ));
    for field in &s.fields {
        write(format!("{}: {},", field.name, default_value(field)));
    }
    write(format!(
        "}} }} }} impl Codec for {name} {{\n\
         fn decode(d: &mut Decoder, version: i16) -> Result<Self, DecodeError> {{\n\
         let flexible = {flexible}; let _ = (flexible, version); let mut out = Self::default();\n{}Ok(out) }}\n\
         fn encode(&self, e: &mut Encoder, version: i16) -> Result<(), EncodeError> {{\n\
         let flexible = {flexible}; let _ = (flexible, version);\n{}Ok(()) }} }}",
        decode_body(s, message),
        encode_body(s, message)
    ));
    out
}

/// Responses that can tell a client to slow down get a way to.
fn set_throttle_time(message: &Message) -> &'static str {
    let top = message.structs.iter().find(|s| s.name == message.name);
    let throttles = top.is_some_and(|s| s.fields.iter().any(|f| f.name == "throttle_time_ms"));
    match throttles {
        true => "fn set_throttle_time(&mut self, ms: i32) { self.throttle_time_ms = ms; }",
        false => "",
    }
}

/// The Rust module of one message.
pub(crate) fn message(message: &Message) -> String {
    let structs: String = message
        .structs
        .iter()
        .map(|s| structure(s, message))
        .collect();
    format!(
        "pub mod {module} {{ use super::prelude::*;\n{structs}\n\
         impl Message for {name} {{ const KEY: i16 = {key}; const NAME: &'static str = {name:?};\n\
         const VALID: std::ops::RangeInclusive<i16> = {from}..={to}; const FLEXIBLE_FROM: i16 = {flexible};\n\
         {throttle} }} }}\n\
         pub use {module}::{name};\n",
        throttle = set_throttle_time(message),
        module = snake(&message.name),
        name = message.name,
        key = message.key,
        from = message.valid.from,
        to = message.valid.to,
        flexible = message.flexible.from,
    )
}

/// A macro that hands all of them to another, so that no list of them has to be kept by hand.
pub(crate) fn every_message(names: &str) -> String {
    format!(
        "/// Expands to `$with! {{ arguments; Message Message .. }}`, with the name of every message.\n\
         #[macro_export] macro_rules! every_kafka_message {{\n\
         ($with:ident $($argument:tt)*) => {{ $with! {{ $($argument)*; {names} }} }};\n}}\n"
    )
}
