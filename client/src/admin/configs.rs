//! Settings of topics and nodes.

use callboard_common::ErrorCode;
use callboard_common::protocol::configs::{
    AlterConfigs, AlteredConfigs, ConfigChange, ConfigEntry, ConfigResource, DescribeConfigs,
    DescribedConfigs,
};

use super::{Admin, refused};
use crate::connection::Lane;
use crate::error::Error;

impl Admin {
    /// The settings of a topic or a node, sorted by name, with where each comes from and what it is for.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`], with `UnknownTopicOrPartition` if there is no such topic.
    ///
    /// ```
    /// # use callboard_broker::Node;
    /// # use callboard_client::{Client, ClientConfig, Trust};
    /// use callboard_client::protocol::configs::{ConfigChange, ConfigOp, ConfigResource, ConfigSource};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let node = Node::builder().in_memory().start().await?;
    /// # let client = Client::connect(ClientConfig::new(node.quic(), Trust::Ca(node.ca_pem().into()))).await?;
    /// let admin = client.admin();
    /// let _topic = admin.create_topic("orders", 1).await?;
    /// let topic = ConfigResource::Topic("orders".into());
    /// let change = ConfigChange { name: "retention.ms".into(), op: ConfigOp::Set, value: Some("60000".into()) };
    /// admin.alter_configs(topic.clone(), vec![change], false).await?;
    /// let configs = admin.describe_configs(topic).await?;
    /// let retention = configs.iter().find(|c| &*c.name == "retention.ms").expect("every setting is described");
    /// assert_eq!((retention.value.as_deref(), retention.source), (Some("60000"), ConfigSource::Topic));
    /// # Ok(()) }
    /// ```
    pub async fn describe_configs(
        &self,
        resource: ConfigResource,
    ) -> Result<Vec<ConfigEntry>, Error> {
        let request = DescribeConfigs {
            resources: vec![(resource, None)],
            synonyms: true,
            documentation: true,
        };
        let accept = |mut described: DescribedConfigs| {
            let resource = described
                .resources
                .pop()
                .ok_or(Error::refused(ErrorCode::UnknownServerError))?;
            refused(resource.error, resource.message)?;
            Ok(resource.configs)
        };
        self.client
            .ask_patiently(Lane::Control, request, accept)
            .await
    }

    /// Changes settings, all of them or none; with `validate_only` checks whether that is possible.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`], with `InvalidConfig` and what is wrong; nothing was changed.
    pub async fn alter_configs(
        &self,
        resource: ConfigResource,
        changes: Vec<ConfigChange>,
        validate_only: bool,
    ) -> Result<(), Error> {
        let request = AlterConfigs {
            resources: vec![(resource, changes)],
            replace: false,
            validate_only,
        };
        let accept = |mut altered: AlteredConfigs| match altered.resources.pop() {
            Some((_, error, detail)) => refused(error, detail),
            None => Err(Error::refused(ErrorCode::UnknownServerError)),
        };
        self.client
            .ask_patiently(Lane::Control, request, accept)
            .await
    }
}
