//! Who a client is and what it may do: rows 5, 20, 32 to 35, 38, 45 and 49.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use callboard_common::Clock;

use callboard_client::protocol::configs::{ConfigChange, ConfigOp, ConfigResource};
use callboard_client::protocol::list_offsets::OffsetTarget;
use callboard_client::protocol::security::{
    Acl, AclFilter, Operation, PatternFilter, PatternKind, Permission, ResourceKind,
};
use callboard_client::{
    Admin, Client, ClientConfig, Consumer, ConsumerConfig, Credentials, Error, Producer,
    ProducerConfig, Record, TopicPartition, Trust,
};
use callboard_cluster_tests::wire::Raw;
use callboard_common::ErrorCode;
use callboard_common::kafka::{ApiKey, Message, Text, messages as m};
use callboard_common::record::{BatchBuilder, Compression};

use super::Scene;

fn secured() -> Scene {
    Scene::with(|config| {
        config.security.authenticate = true;
        config.security.authorize = true;
        config.listeners.kafka_tls = "127.0.0.1:0".into();
    })
}

fn handshake(connection: &mut Raw, mechanism: &'static str) -> ErrorCode {
    let mechanism = Text::from_static(mechanism);
    let answer: m::SaslHandshakeResponse =
        connection.ask(&m::SaslHandshakeRequest { mechanism }, 1);
    ErrorCode::from_number(answer.error_code)
}

fn token(connection: &mut Raw, bytes: &[u8]) -> (ErrorCode, Vec<u8>) {
    let auth_bytes = bytes.to_vec().into();
    let answer: m::SaslAuthenticateResponse =
        connection.ask(&m::SaslAuthenticateRequest { auth_bytes }, 2);
    let error = ErrorCode::from_number(answer.error_code);
    (error, answer.auth_bytes.to_vec())
}

/// A connection of the first user.
fn admin(scene: &Scene) -> Raw {
    let (user, password) = scene.node().first_user().expect("the node asks");
    let mut connection = scene.connect();
    assert_eq!(handshake(&mut connection, "PLAIN"), ErrorCode::None);
    let (error, _) = token(&mut connection, format!("\0{user}\0{password}").as_bytes());
    assert_eq!(error, ErrorCode::None);
    connection
}

async fn client(scene: &Scene, user: &str, password: &str) -> Result<Client, Error> {
    let trust = Trust::Ca(scene.node().ca_pem().to_owned());
    let mut config = ClientConfig::new(scene.node().quic(), trust);
    config.credentials = Some(Credentials {
        user: user.into(),
        password: password.into(),
    });
    config.api_timeout = Duration::from_secs(5);
    Client::connect(config).await
}

pub(super) async fn admin_client(scene: &Scene) -> Client {
    let (user, password) = scene.node().first_user().expect("the node asks");
    client(scene, &user, &password).await.expect("connects")
}

#[test]
fn row_5_plaintext_to_the_tls_door_is_closed() {
    let scene = secured();
    let tls = scene.node().kafka_tls().expect("there is such a door");
    let mut connection = Raw::connect(tls);
    let body = m::ApiVersionsRequest::default().to_bytes(0).expect("fits");
    let sent = connection.send_body(m::ApiVersionsRequest::KEY, 0, &body);
    sent.expect("sent");
    // A TLS alert may come first.
    let mut rest = Vec::new();
    while let Ok(byte) = connection.byte() {
        rest.push(byte);
    }
    assert!(
        rest.len() <= 7 && rest.first().is_none_or(|b| *b == 0x15),
        "{rest:?}"
    );
    let _still = admin(&scene);
}

#[test]
fn row_20_batches_of_transactions_are_refused() {
    let scene = Scene::new();
    let mut builder = BatchBuilder::new(Compression::None).producer(7, 0, 0);
    builder.push(super::now(), None, Some(b"x"), &[]);
    let plain = builder.build().bytes().to_vec();
    for bit in [1u8 << 4, 1 << 5] {
        let mut forged = plain.clone();
        forged[22] |= bit;
        let sum = callboard_common::record::batch::checksum(&forged[super::CHECKSUM_FROM..]);
        forged[17..21].copy_from_slice(&sum.to_be_bytes());
        let (error, _) = scene.produce(forged);
        assert_eq!(error, ErrorCode::InvalidRecord);
    }
    scene.is_healthy();
}

#[test]
fn row_32_hostile_authentication() {
    let scene = secured();
    let failed = |bytes: &[u8], mechanism| {
        let mut connection = scene.connect();
        assert_eq!(handshake(&mut connection, mechanism), ErrorCode::None);
        let (error, _) = token(&mut connection, bytes);
        assert_eq!(error, ErrorCode::SaslAuthenticationFailed, "{bytes:?}");
        assert!(
            connection.is_closed(),
            "after a failure the connection is closed"
        );
    };
    failed(b"\0admin\0wrong", "PLAIN");
    failed(b"admin", "PLAIN");
    failed(b"bob\0admin\0x", "PLAIN");
    failed(&[0xff; 100], "PLAIN");
    failed(b"n,,n=admin,r=", "SCRAM-SHA-256");
    failed(b"p=tls-unique,,n=admin,r=abc", "SCRAM-SHA-512");
    failed(b"n,a=root,n=admin,r=abc", "SCRAM-SHA-256");
    // An unknown mechanism, and a token before the handshake.
    let mut connection = scene.connect();
    assert_eq!(
        handshake(&mut connection, "GSSAPI"),
        ErrorCode::UnsupportedSaslMechanism
    );
    assert!(connection.is_closed());
    let mut connection = scene.connect();
    assert_eq!(
        token(&mut connection, b"\0a\0b").0,
        ErrorCode::IllegalSaslState
    );
    // More bytes than anybody needs to prove who he is: closed before they are read.
    let mut connection = scene.connect();
    let _sent = connection.send(&(1i32 << 20).to_be_bytes());
    assert!(connection.is_closed());
    // A challenge is answered once: a second final message finds nobody waiting for it.
    let mut connection = scene.connect();
    assert_eq!(handshake(&mut connection, "SCRAM-SHA-256"), ErrorCode::None);
    let (error, challenge) = token(&mut connection, b"n,,n=admin,r=abc");
    assert_eq!(error, ErrorCode::None);
    assert!(challenge.starts_with(b"r=abc"), "{challenge:?}");
    let (error, _) = token(&mut connection, b"c=biws,r=abc,p=AAAA");
    assert_eq!(error, ErrorCode::SaslAuthenticationFailed);
    assert!(connection.is_closed());
    // Who is somebody cannot become somebody else.
    let mut connection = admin(&scene);
    assert_eq!(
        handshake(&mut connection, "PLAIN"),
        ErrorCode::IllegalSaslState
    );
}

#[test]
fn row_33_nothing_is_served_before_authentication() {
    let scene = secured();
    for key in ApiKey::ALL {
        let open = [
            ApiKey::ApiVersions,
            ApiKey::SaslHandshake,
            ApiKey::SaslAuthenticate,
        ];
        if open.contains(key) {
            continue;
        }
        for version in [key.advertised().0.max(0), key.advertised().1] {
            if key.serves(version) {
                scene.closes_body(
                    &format!("{key:?} {version}"),
                    key.number(),
                    version,
                    &[0; 64],
                );
            }
        }
    }
    let none: m::MetadataResponse = admin(&scene).ask(&m::MetadataRequest::default(), 9);
    assert!(
        none.topics.is_empty(),
        "nothing was done: {:?}",
        none.topics
    );
    scene.runtime.block_on(async {
        let trust = Trust::Ca(scene.node().ca_pem().to_owned());
        let nobody = Client::connect(ClientConfig::new(scene.node().quic(), trust)).await;
        let code = nobody
            .map(|_| ())
            .expect_err("it must prove who it is")
            .code();
        assert_eq!(code, Some(ErrorCode::SaslAuthenticationFailed));
        let wrong = client(&scene, "admin", "wrong").await.map(|_| ());
        assert!(
            matches!(wrong, Err(Error::Authentication { .. })),
            "{wrong:?}"
        );
    });
}

/// A user that is not there takes as long as a wrong password, and gets the same answer.
#[test]
fn row_34_users_cannot_be_told_from_nobody() {
    let (scene, clock) = (secured(), Clock::machine());
    let time = |user: &str| {
        let once = || {
            let mut connection = scene.connect();
            let _taken = handshake(&mut connection, "PLAIN");
            let began = clock.now().monotonic;
            let (error, _) = token(&mut connection, format!("\0{user}\0wrong").as_bytes());
            assert_eq!(error, ErrorCode::SaslAuthenticationFailed);
            clock.now().monotonic.since(began)
        };
        (0..5).map(|_| once()).min().expect("five times")
    };
    let (there, nobody) = (time("admin"), time("nobody"));
    let ratio = there.as_secs_f64() / nobody.as_secs_f64();
    assert!((0.8..1.25).contains(&ratio), "{there:?} {nobody:?}");
}

/// KIP-430: ann may see the only topic that she sees, the administrator may do all, and who does not ask is told nothing.
fn rights_are_told_who_asks_for_them(ann: &mut Raw, admin: &mut Raw) {
    let ask = |connection: &mut Raw, asks: bool| -> (i32, i32) {
        let request = m::MetadataRequest {
            topics: None,
            include_topic_authorized_operations: asks,
            include_cluster_authorized_operations: asks,
            ..Default::default()
        };
        let told: m::MetadataResponse = connection.ask(&request, 9);
        let mut topics = told.topics.iter().filter(|t| !t.is_internal);
        let topic = topics.next().expect("one is seen");
        let rights = topic.topic_authorized_operations;
        (rights, told.cluster_authorized_operations)
    };
    let bit = |operation: Operation| 1 << operation.number();
    let (topic, cluster) = ask(ann, true);
    assert_eq!(topic, bit(Operation::Describe), "writing is denied");
    assert_eq!(cluster, 0);
    assert_eq!(ask(ann, false), (i32::MIN, i32::MIN));
    let (topic, cluster) = ask(admin, true);
    let (all, of_cluster) = (0b1101_1111_1000, 0b1_1111_1010_0000);
    assert_eq!((topic, cluster), (all, of_cluster));
}

/// Everything that a user without rules tries, over the QUIC door.
async fn everything(client: &Client) -> Vec<(&'static str, Option<ErrorCode>)> {
    let admin: Admin = client.admin();
    let code = |r: Result<(), Error>| r.err().and_then(|e| e.code());
    let partition = TopicPartition::parse("orders-0").expect("valid");
    let topic = || ConfigResource::Topic("orders".into());
    let change = ConfigChange {
        name: "retention.ms".into(),
        op: ConfigOp::Set,
        value: Some("5".into()),
    };
    let acl = Acl {
        resource: ResourceKind::Topic,
        pattern: PatternKind::Literal,
        name: "*".into(),
        principal: "User:ann".into(),
        host: "*".into(),
        operation: Operation::All,
        permission: Permission::Allow,
    };
    let any = || AclFilter {
        resource: None,
        pattern: PatternFilter::Any,
        name: None,
        principal: None,
        host: None,
        operation: None,
        permission: None,
    };
    let node = ConfigResource::Broker("1".into());
    let quota = vec![("user".into(), None)];
    let producer = Producer::new(client, ProducerConfig::default());
    let mut out = vec![
        (
            "create_topic",
            code(admin.create_topic("mine", 1).await.map(drop)),
        ),
        ("delete_topic", code(admin.delete_topic("orders").await)),
        (
            "create_partitions",
            code(admin.create_partitions("orders", 9).await),
        ),
        (
            "describe_topics",
            code(admin.describe_topics(&["orders"]).await.map(drop)),
        ),
        (
            "delete_records",
            code(admin.delete_records(&partition, None).await.map(drop)),
        ),
        (
            "list_offsets",
            code(
                admin
                    .offset(&partition, OffsetTarget::Latest)
                    .await
                    .map(drop),
            ),
        ),
        (
            "describe_configs",
            code(admin.describe_configs(topic()).await.map(drop)),
        ),
        (
            "describe_configs of the node",
            code(admin.describe_configs(node).await.map(drop)),
        ),
        (
            "alter_configs",
            code(admin.alter_configs(topic(), vec![change], false).await),
        ),
        (
            "describe_group",
            code(admin.describe_group("g").await.map(drop)),
        ),
        (
            "group_offsets",
            code(admin.group_offsets("g").await.map(drop)),
        ),
        (
            "set_group_offsets",
            code(
                admin
                    .set_group_offsets(
                        "g",
                        &[(partition.clone(), callboard_common::Offset::ZERO)].into(),
                    )
                    .await,
            ),
        ),
        ("delete_group", code(admin.delete_group("g").await)),
        ("users", code(admin.users().await.map(drop))),
        (
            "set_password",
            code(admin.set_password("admin", "mine").await),
        ),
        ("acls", code(admin.acls(any()).await.map(drop))),
        ("create_acl", code(admin.create_acl(acl).await)),
        (
            "delete_acls",
            code(admin.delete_acls(any()).await.map(drop)),
        ),
        ("quotas", code(admin.quotas().await.map(drop))),
        (
            "alter_quotas",
            code(
                admin
                    .alter_quotas(quota, vec![("producer_byte_rate".into(), Some(1.0))])
                    .await,
            ),
        ),
        (
            "produce",
            code(
                producer
                    .send(Record::to("orders").value("x"))
                    .await
                    .map(drop),
            ),
        ),
    ];
    let config = ConsumerConfig::group("g");
    let joined = Consumer::subscribe(client, config, ["orders"]).await;
    out.push((
        "consume",
        match joined {
            Ok(mut consumer) => code(consumer.recv().await.map(drop)),
            Err(error) => error.code(),
        },
    ));
    out
}

/// One authorizer for all doors: what no rule allows is refused on each, lists show nothing, names do not leak.
#[test]
fn row_35_what_no_rule_allows_is_refused_on_every_door() {
    let scene = secured();
    scene.runtime.block_on(async {
        let admin = admin_client(&scene).await;
        admin
            .admin()
            .create_topic("orders", 1)
            .await
            .expect("created");
        admin
            .admin()
            .set_password("ann", "secret")
            .await
            .expect("made");
        let ann = client(&scene, "ann", "secret").await.expect("connects");
        let refused = [
            ErrorCode::TopicAuthorizationFailed,
            ErrorCode::GroupAuthorizationFailed,
            ErrorCode::ClusterAuthorizationFailed,
        ];
        for (what, code) in everything(&ann).await {
            assert!(
                code.is_some_and(|c| refused.contains(&c)),
                "{what}: {code:?}"
            );
        }
        assert!(
            ann.admin()
                .describe_topics(&[])
                .await
                .expect("a list")
                .is_empty()
        );
        assert!(ann.admin().list_groups().await.expect("a list").is_empty());
        let missing = ann.admin().describe_topics(&["missing"]).await;
        let code = missing.expect_err("it may not know").code();
        assert_eq!(
            code,
            Some(ErrorCode::TopicAuthorizationFailed),
            "as for one that is there"
        );
        // One rule allows one thing.
        let read = Acl {
            resource: ResourceKind::Topic,
            pattern: PatternKind::Prefixed,
            name: "ord".into(),
            principal: "User:ann".into(),
            host: "*".into(),
            operation: Operation::Write,
            permission: Permission::Allow,
        };
        // Who may see a topic and not write is told so, and a flush does not wait for what will not come.
        let see = Acl {
            operation: Operation::Describe,
            ..read.clone()
        };
        admin.admin().create_acl(see).await.expect("added");
        let producer = Producer::new(&ann, ProducerConfig::default());
        let sent = producer.enqueue(Record::to("orders").value("x")).await;
        let patience = Duration::from_secs(30);
        let flushed = tokio::time::timeout(patience, producer.flush()).await;
        flushed.expect("it ends").expect("it is open");
        let refused = sent.expect("queued").await.expect_err("it may not");
        let code = refused.code().expect("the node said so");
        assert!(
            [
                ErrorCode::ClusterAuthorizationFailed,
                ErrorCode::TopicAuthorizationFailed
            ]
            .contains(&code),
            "{refused}"
        );
        admin.admin().create_acl(read.clone()).await.expect("added");
        producer
            .send(Record::to("orders").value("x"))
            .await
            .expect("allowed");
        let deleted = ann
            .admin()
            .delete_topic("orders")
            .await
            .expect_err("writing is not deleting");
        assert_eq!(deleted.code(), Some(ErrorCode::TopicAuthorizationFailed));
        // A rule that denies beats it.
        let deny = Acl {
            permission: Permission::Deny,
            pattern: PatternKind::Literal,
            name: "orders".into(),
            ..read
        };
        admin.admin().create_acl(deny).await.expect("added");
        let denied = producer
            .send(Record::to("orders").value("x"))
            .await
            .expect_err("denied");
        assert_eq!(denied.code(), Some(ErrorCode::TopicAuthorizationFailed));
    });
    // The same on the Kafka door.
    let mut ann = scene.connect();
    assert_eq!(handshake(&mut ann, "PLAIN"), ErrorCode::None);
    assert_eq!(token(&mut ann, b"\0ann\0secret").0, ErrorCode::None);
    let listed: m::MetadataResponse = ann.ask(
        &m::MetadataRequest {
            topics: None,
            ..Default::default()
        },
        9,
    );
    assert_eq!(listed.topics.len(), 1, "what may be written may be seen");
    rights_are_told_who_asks_for_them(&mut ann, &mut admin(&scene));
    let cluster = ErrorCode::ClusterAuthorizationFailed.number();
    let users: m::DescribeUserScramCredentialsResponse =
        ann.ask(&m::DescribeUserScramCredentialsRequest::default(), 0);
    let acls: m::DescribeAclsResponse = ann.ask(
        &m::DescribeAclsRequest {
            resource_type_filter: 1,
            pattern_type_filter: 1,
            operation: 1,
            permission_type: 1,
            ..Default::default()
        },
        3,
    );
    let quotas: m::DescribeClientQuotasResponse =
        ann.ask(&m::DescribeClientQuotasRequest::default(), 1);
    let features = m::UpdateFeaturesRequest {
        feature_updates: vec![m::update_features_request::FeatureUpdateKey {
            feature: "callboard.version".into(),
            max_version_level: 4,
            ..Default::default()
        }],
        ..Default::default()
    };
    let features: m::UpdateFeaturesResponse = ann.ask(&features, 2);
    assert_eq!(features.error_code, cluster);
    assert_eq!(
        (users.error_code, acls.error_code, quotas.error_code),
        (cluster, cluster, cluster)
    );
    let groups: m::ListGroupsResponse = ann.ask(&m::ListGroupsRequest::default(), 5);
    assert!(groups.groups.is_empty());
    // And for metrics.
    let status = |headers: &str| {
        http(
            &scene,
            &format!("GET /metrics HTTP/1.1\r\nHost: x\r\n{headers}Connection: close\r\n\r\n"),
        )
    };
    assert!(status("").starts_with("HTTP/1.1 401"));
    // "ann:secret": a user, who may not see the cluster.
    assert!(status("Authorization: Basic YW5uOnNlY3JldA==\r\n").starts_with("HTTP/1.1 401"));
}

#[test]
fn row_38_tls_is_new_enough_and_cannot_be_played_again() {
    let scene = secured();
    let tls = scene.node().kafka_tls().expect("there is such a door");
    // A hello of TLS 1.0 that offers what was good then.
    let hello: &[u8] = &[
        0x16, 0x03, 0x01, 0x00, 0x2f, 0x01, 0x00, 0x00, 0x2b, 0x03, 0x01, 7, 7, 7, 7, 7, 7, 7, 7,
        7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 0x00, 0x00, 0x04,
        0x00, 0x05, 0x00, 0x0a, 0x01, 0x00,
    ];
    let mut connection = Raw::connect(tls);
    connection.send(hello).expect("sent");
    let mut answer = Vec::new();
    while let Ok(byte) = connection.byte() {
        answer.push(byte);
    }
    assert_eq!(
        answer.first(),
        Some(&0x15),
        "an alert, no server hello: {answer:?}"
    );
    // Half a hello, and then nothing: the handshake ends in time, and others are served meanwhile.
    let mut slow = Raw::connect(tls);
    slow.send(&hello[..20]).expect("sent");
    let _served = admin(&scene);
}

#[test]
fn rows_43_to_45_datagrams_that_are_no_quic() {
    let scene = Scene::new();
    let quic = scene.node().quic();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
    socket
        .set_read_timeout(Some(Duration::from_millis(200)))
        .expect("set");
    let mut received = 0;
    let mut sent = 0;
    for size in [0, 1, 20, 100, 1199, 1400] {
        for first in [0x00u8, 0x40, 0x7f, 0xc0, 0xc3, 0xff] {
            let mut packet = vec![0xa5; size];
            if let Some(byte) = packet.first_mut() {
                *byte = first;
            }
            sent += socket.send_to(&packet, quic).expect("sent");
        }
    }
    let mut buffer = [0; 2048];
    while let Ok((size, _)) = socket.recv_from(&mut buffer) {
        received += size;
    }
    assert!(received <= 3 * sent, "{received} bytes for {sent}");
    // Datagrams on the Kafka port and TCP on the QUIC port lead nowhere.
    let _nobody_listens = socket.send_to(b"hello", scene.node().kafka());
    assert!(TcpStream::connect(quic).is_err());
    scene.is_healthy();
}

/// What the HTTP door says to these bytes.
fn http(scene: &Scene, request: &str) -> String {
    let mut stream = TcpStream::connect(scene.node().http()).expect("the node accepts");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("set");
    let _sent = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _closed = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn row_49_hostile_http() {
    let scene = Scene::new();
    let status = |request: &str| {
        let answer = http(&scene, request);
        answer
            .split_whitespace()
            .nth(1)
            .unwrap_or("closed")
            .to_owned()
    };
    let get = |path: &str| {
        status(&format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        ))
    };
    assert_eq!(get("/health"), "200");
    assert_eq!(get("/../../etc/passwd"), "404");
    assert_eq!(get("/%2e%2e/%2e%2e/etc/passwd"), "404");
    let post =
        "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
    assert_eq!(status(post), "405");
    let large = format!(
        "GET /health HTTP/1.1\r\nHost: x\r\nX-Large: {}\r\n\r\n",
        "a".repeat(1 << 20)
    );
    assert!(
        ["431", "400", "closed"].contains(&&*status(&large)),
        "{}",
        status(&large)
    );
    let smuggled = "GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = http(&scene, smuggled);
    assert!(
        !answer.starts_with("HTTP/1.1 200") || !answer.contains("HTTP/1.1 400"),
        "{answer}"
    );
    let many = format!("GET /health HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(10_000));
    assert!(["431", "400", "closed"].contains(&&*status(&many)));
    assert_eq!(status("\u{0}\u{1}\u{2}garbage\r\n\r\n"), "400");
    scene.is_healthy();
}
