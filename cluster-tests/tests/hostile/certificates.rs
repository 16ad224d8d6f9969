//! Who a client is by its certificate, and which certificates say nothing.

use callboard_client::protocol::security::{Acl, Operation, PatternKind, Permission, ResourceKind};
use callboard_client::{
    Client, ClientCertificate, ClientConfig, Credentials, Error, Producer, ProducerConfig, Record,
    Trust,
};
use callboard_common::transport::authority::Authority;
use callboard_common::{BrokerId, ErrorCode};

use super::Scene;
use super::security::admin_client;

/// A node that asks who everybody is and believes the certificates of this authority.
fn scene(authority: &Authority) -> Scene {
    let dir = tempfile::tempdir().expect("a directory");
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, authority.ca_pem()).expect("written");
    Scene::with(|config| {
        config.security.authenticate = true;
        config.security.authorize = true;
        config.security.client_ca = ca.display().to_string();
    })
}

async fn connect(scene: &Scene, pem: Option<&str>) -> Result<Client, Error> {
    connect_as(scene, pem, None).await
}

async fn connect_as(
    scene: &Scene,
    pem: Option<&str>,
    credentials: Option<Credentials>,
) -> Result<Client, Error> {
    let trust = Trust::Ca(scene.node().ca_pem().to_owned());
    let mut config = ClientConfig::new(scene.node().quic(), trust);
    config.certificate = pem.map(|pem| ClientCertificate::new(pem).expect("both are there"));
    config.credentials = credentials;
    config.api_timeout = std::time::Duration::from_secs(5);
    Client::connect(config).await
}

#[test]
fn a_certificate_says_who_a_client_is() {
    let authority = Authority::create("Wb_-1").expect("made");
    let scene = scene(&authority);
    let ann = authority.client("ann").expect("made");
    scene.runtime.block_on(async {
        let admin = admin_client(&scene).await;
        let admin = admin.admin();
        admin.create_topic("orders", 1).await.expect("created");
        let (user, password) = scene.node().first_user().expect("the node asks");
        let credentials = Some(Credentials { user, password });
        let both = connect_as(&scene, Some(&ann), credentials).await;
        let both = both.expect("a password comes over a certificate");
        let created = both.admin().create_topic("more", 1).await;
        assert!(created.is_ok(), "the first user may: {created:?}");
        let ann = connect(&scene, Some(&ann)).await.expect("connects");
        let send = || async {
            let producer = Producer::new(&ann, ProducerConfig::default());
            let sent = producer.send(Record::to("orders").value("x")).await;
            sent.map(|_| ()).map_err(|e| e.code())
        };
        let refused = Err(Some(ErrorCode::TopicAuthorizationFailed));
        assert_eq!(send().await, refused, "no rule allows it");
        let write = Acl {
            resource: ResourceKind::Topic,
            pattern: PatternKind::Literal,
            name: "orders".into(),
            principal: "User:ann".into(),
            host: "*".into(),
            operation: Operation::Write,
            permission: Permission::Allow,
        };
        admin.create_acl(write).await.expect("added");
        assert_eq!(send().await, Ok(()));
    });
}

/// A certificate of another authority, one of a node, and none: whoever shows it is nobody, and others are served.
#[test]
fn other_certificates_say_nothing() {
    let authority = Authority::create("Wb_-1").expect("made");
    let scene = scene(&authority);
    let forged = Authority::create("Wb_-1").expect("made");
    let forged = forged.client("admin").expect("made");
    let node = authority.node(BrokerId(1), &[]).expect("made");
    let node = node.certificate_pem + &node.key_pem;
    scene.runtime.block_on(async {
        let code = |connected: Result<Client, Error>| connected.map(drop).map_err(|e| e.code());
        let forged = code(connect(&scene, Some(&forged)).await);
        assert_eq!(forged, Err(None), "the handshake fails");
        for pem in [None, Some(&*node)] {
            let nobody = code(connect(&scene, pem).await);
            assert_eq!(nobody, Err(Some(ErrorCode::SaslAuthenticationFailed)));
        }
        let _served = admin_client(&scene).await;
    });
}
