//! Reads the schema notation that `common/src/kafka/mod.rs` describes.

/// Versions `from..=to` of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Versions {
    pub(crate) from: i16,
    pub(crate) to: i16,
}

impl Versions {
    pub(crate) const NONE: Self = Self {
        from: i16::MAX,
        to: i16::MIN,
    };

    fn parse(text: &str) -> Result<Self, String> {
        let number = |t: &str| t.parse::<i16>().map_err(|e| format!("version {t:?}: {e}"));
        Ok(match text.split_once('-') {
            _ if text == "none" => Self::NONE,
            Some((from, to)) => Self {
                from: number(from)?,
                to: number(to)?,
            },
            None => match text.strip_suffix('+') {
                Some(from) => Self {
                    from: number(from)?,
                    to: i16::MAX,
                },
                None => Self {
                    from: number(text)?,
                    to: number(text)?,
                },
            },
        })
    }

    pub(crate) fn contains(self, version: i16) -> bool {
        self.from <= version && version <= self.to
    }
}

/// The type of a field; `Struct` names one of the message's structs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    Int8,
    Int16,
    Uint16,
    Int32,
    Int64,
    Float64,
    Uuid,
    Text,
    Bytes,
    Struct(String),
    Array(Box<Kind>),
}

#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) versions: Versions,
    pub(crate) nullable: Versions,
    pub(crate) tag: Option<(u32, Versions)>,
    pub(crate) default: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Struct {
    pub(crate) name: String,
    pub(crate) fields: Vec<Field>,
}

#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) name: String,
    pub(crate) key: i16,
    pub(crate) valid: Versions,
    pub(crate) flexible: Versions,
    /// The message itself comes first.
    pub(crate) structs: Vec<Struct>,
}

fn kind(text: &str) -> Kind {
    match text {
        "bool" => Kind::Bool,
        "int8" => Kind::Int8,
        "int16" => Kind::Int16,
        "uint16" => Kind::Uint16,
        "int32" => Kind::Int32,
        "int64" => Kind::Int64,
        "float64" => Kind::Float64,
        "uuid" => Kind::Uuid,
        "string" => Kind::Text,
        "bytes" | "records" => Kind::Bytes,
        _ => match text.strip_prefix("[]") {
            Some(element) => Kind::Array(Box::new(kind(element))),
            None => Kind::Struct(text.to_owned()),
        },
    }
}

fn field(line: &str) -> Result<Field, String> {
    let mut words = line.split_whitespace();
    let mut next = || words.next().ok_or_else(|| format!("{line:?} ends early"));
    let name = next()?
        .strip_suffix(':')
        .ok_or_else(|| format!("{line:?} lacks a colon"))?
        .to_owned();
    let mut field = Field {
        name,
        kind: kind(next()?),
        versions: Versions::parse(next()?)?,
        nullable: Versions::NONE,
        tag: None,
        default: None,
    };
    for word in words {
        let (key, value) = word
            .split_once('=')
            .ok_or_else(|| format!("{word:?} is no key=value"))?;
        match key {
            "null" => field.nullable = Versions::parse(value)?,
            "default" => field.default = Some(value.to_owned()),
            "tag" => {
                let (tag, versions) = value.split_once('@').ok_or("a tag is number@versions")?;
                field.tag = Some((
                    tag.parse().map_err(|e| format!("{e}"))?,
                    Versions::parse(versions)?,
                ));
            }
            _ => return Err(format!("unknown attribute {key:?}")),
        }
    }
    Ok(field)
}

/// Returns the name of the struct that fields nested under a field of this kind belong to.
fn struct_of(kind: &Kind) -> Option<String> {
    match kind {
        Kind::Struct(name) => Some(name.clone()),
        Kind::Array(element) => struct_of(element),
        _ => None,
    }
}

fn header(line: &str) -> Result<Message, String> {
    let mut words = line.split_whitespace().skip(1);
    let name = words.next().ok_or("a message has a name")?.to_owned();
    let mut message = Message {
        structs: vec![Struct {
            name: name.clone(),
            fields: Vec::new(),
        }],
        name,
        key: -1,
        valid: Versions::NONE,
        flexible: Versions::NONE,
    };
    for word in words {
        match word.split_once('=') {
            Some(("key", key)) => message.key = key.parse().map_err(|e| format!("{e}"))?,
            Some(("valid", versions)) => message.valid = Versions::parse(versions)?,
            Some(("flexible", versions)) => message.flexible = Versions::parse(versions)?,
            _ => return Err(format!("unknown attribute {word:?}")),
        }
    }
    Ok(message)
}

/// Parses the messages of one schema file, in order.
pub(crate) fn parse(text: &str) -> Result<Vec<Message>, String> {
    let mut messages: Vec<Message> = Vec::new();
    // Which struct the lines of each depth go into.
    let mut path: Vec<usize> = Vec::new();
    for line in text
        .lines()
        .filter(|l| !l.trim().is_empty() && !l.trim_start().starts_with('#'))
    {
        let depth = (line.len() - line.trim_start().len()) / 2;
        if depth == 0 {
            if let Some(name) = line.strip_prefix("struct ") {
                let message = messages.last_mut().ok_or("a struct follows a message")?;
                message.structs.push(Struct {
                    name: name.trim().to_owned(),
                    fields: Vec::new(),
                });
                path = vec![message.structs.len() - 1];
            } else {
                messages.push(header(line)?);
                path = vec![0];
            }
            continue;
        }
        let message = messages.last_mut().ok_or("a field follows a message")?;
        path.truncate(depth);
        let field = field(line)?;
        let owner = *path
            .last()
            .ok_or_else(|| format!("{line:?} is nested too deep"))?;
        let nested = struct_of(&field.kind);
        message.structs[owner].fields.push(field);
        if let Some(name) = nested {
            // The struct gets its lines when the next line is deeper; a common struct is declared below.
            message.structs.push(Struct {
                name,
                fields: Vec::new(),
            });
            path.push(message.structs.len() - 1);
        }
    }
    for message in &mut messages {
        message.structs.retain(|s| !s.fields.is_empty());
    }
    Ok(messages)
}
