//! FindCoordinator, JoinGroup, SyncGroup, Heartbeat and LeaveGroup; ListGroups, DescribeGroups and DeleteGroups.

use callboard_common::ErrorCode;
use callboard_common::kafka::Text;
use callboard_common::kafka::messages::delete_groups_response::DeletableGroupResult;
use callboard_common::kafka::messages::describe_groups_response::{
    DescribedGroup, DescribedGroupMember,
};
use callboard_common::kafka::messages::find_coordinator_response::Coordinator;
use callboard_common::kafka::messages::join_group_response::JoinGroupResponseMember;
use callboard_common::kafka::messages::leave_group_response::MemberResponse;
use callboard_common::kafka::messages::list_groups_response::ListedGroup;
use callboard_common::kafka::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    FindCoordinatorRequest, FindCoordinatorResponse, HeartbeatRequest, HeartbeatResponse,
    JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest,
    ListGroupsResponse, SyncGroupRequest, SyncGroupResponse,
};
use callboard_common::protocol::Response;
use callboard_common::protocol::groups::{
    Blob, CoordinatorKind, DeleteGroups, DeletedGroups, DescribeGroups, DescribedGroups,
    FindCoordinators, FoundCoordinator, FoundCoordinators, GroupDescription, GroupListing,
    Heartbeat, HeartbeatAnswer, JoinGroup, JoinedGroup, LeaveGroup, LeftGroup, ListGroups,
    ListedGroups, MemberDescription, SyncGroup, SyncedGroup,
};

use super::known::Known;
use super::{Answering, Converted, Message, expect};
use crate::api::Resource;

/// From here on new members are first given an id (KIP-394).
const MEMBER_ID_REQUIRED_FROM_VERSION: i16 = 4;

pub(super) fn find(request: FindCoordinatorRequest, version: i16) -> Converted {
    let kind = match request.key_type {
        0 => CoordinatorKind::Group,
        1 => CoordinatorKind::Transaction,
        2 => CoordinatorKind::Share,
        _ => CoordinatorKind::Unknown,
    };
    let keys = if version < 4 {
        vec![request.key]
    } else {
        request.coordinator_keys
    };
    Converted::Request(
        FindCoordinators { kind, keys }.into(),
        Answering::FindCoordinators,
    )
}

pub(super) fn found(response: Response, version: i16) -> Message {
    let message =
        |error: ErrorCode| (error != ErrorCode::None).then(|| Text::from_static(error.message()));
    let coordinator = |c: FoundCoordinator| {
        let there = c.error == ErrorCode::None;
        Coordinator {
            key: c.key,
            node_id: if there { c.broker.0 } else { -1 },
            host: if there { c.host } else { Text::default() },
            port: if there { c.port.into() } else { -1 },
            error_code: c.error.number(),
            error_message: message(c.error),
        }
    };
    let (found, error) = match expect::<FoundCoordinators>(response) {
        Ok(found) => (found.coordinators, ErrorCode::None),
        Err(error) => (Vec::new(), error),
    };
    let mut coordinators: Vec<Coordinator> = found.into_iter().map(coordinator).collect();
    if version >= 4 {
        return Box::new(FindCoordinatorResponse {
            coordinators,
            ..Default::default()
        });
    }
    let one = coordinators.pop().unwrap_or_else(|| Coordinator {
        node_id: -1,
        port: -1,
        error_code: error.number(),
        error_message: message(error),
        ..Default::default()
    });
    Box::new(FindCoordinatorResponse {
        error_code: one.error_code,
        error_message: one.error_message,
        node_id: one.node_id,
        host: one.host,
        port: one.port,
        ..Default::default()
    })
}

pub(super) fn join(request: JoinGroupRequest, version: i16) -> Converted {
    let session = request.session_timeout_ms;
    let join = JoinGroup {
        group: request.group_id,
        session_timeout_ms: session,
        // Version 0 knows one timeout for both.
        rebalance_timeout_ms: if version == 0 {
            session
        } else {
            request.rebalance_timeout_ms
        },
        member: request.member_id,
        member_id_required: version >= MEMBER_ID_REQUIRED_FROM_VERSION
            && request.group_instance_id.is_none(),
        instance: request.group_instance_id,
        protocol_type: request.protocol_type,
        protocols: request
            .protocols
            .into_iter()
            .map(|p| (p.name, Blob(p.metadata)))
            .collect(),
    };
    Converted::Request(join.into(), Answering::JoinGroup)
}

pub(super) fn joined(response: Response, version: i16) -> Message {
    let joined = match expect::<JoinedGroup>(response) {
        Ok(joined) => joined,
        Err(error) => {
            let protocol_name = Some(Text::default());
            return Box::new(JoinGroupResponse {
                error_code: error.number(),
                protocol_name,
                ..Default::default()
            });
        }
    };
    let member = |(member_id, group_instance_id, metadata): (Text, Option<Text>, Blob)| {
        JoinGroupResponseMember {
            member_id,
            group_instance_id,
            metadata: metadata.0,
        }
    };
    Box::new(JoinGroupResponse {
        error_code: joined.error.number(),
        generation_id: joined.generation,
        protocol_type: joined.protocol_type,
        protocol_name: joined
            .protocol
            .or_else(|| (version < 7).then(Text::default)),
        leader: joined.leader,
        skip_assignment: joined.skip_assignment,
        member_id: joined.member,
        members: joined.members.into_iter().map(member).collect(),
        ..Default::default()
    })
}

pub(super) fn sync(request: SyncGroupRequest) -> Converted {
    let sync = SyncGroup {
        group: request.group_id,
        generation: request.generation_id,
        member: request.member_id,
        instance: request.group_instance_id,
        protocol_type: request.protocol_type,
        protocol: request.protocol_name,
        assignments: request
            .assignments
            .into_iter()
            .map(|a| (a.member_id, Blob(a.assignment)))
            .collect(),
    };
    Converted::Request(sync.into(), Answering::SyncGroup)
}

pub(super) fn synced(response: Response) -> Message {
    Box::new(match expect::<SyncedGroup>(response) {
        Ok(synced) => SyncGroupResponse {
            error_code: synced.error.number(),
            protocol_type: synced.protocol_type,
            protocol_name: synced.protocol,
            assignment: synced.assignment.0,
            ..Default::default()
        },
        Err(error) => SyncGroupResponse {
            error_code: error.number(),
            ..Default::default()
        },
    })
}

pub(super) fn heartbeat(request: HeartbeatRequest) -> Converted {
    let heartbeat = Heartbeat {
        group: request.group_id,
        generation: request.generation_id,
        member: request.member_id,
        instance: request.group_instance_id,
    };
    Converted::Request(heartbeat.into(), Answering::Heartbeat)
}

pub(super) fn heartbeat_answer(response: Response) -> Message {
    let error =
        expect::<HeartbeatAnswer>(response).map_or_else(|error| error, |answer| answer.error);
    Box::new(HeartbeatResponse {
        error_code: error.number(),
        ..Default::default()
    })
}

pub(super) fn leave(request: LeaveGroupRequest, version: i16) -> Converted {
    let members = if version < 3 {
        vec![(request.member_id, None)]
    } else {
        request
            .members
            .into_iter()
            .map(|m| (m.member_id, m.group_instance_id))
            .collect()
    };
    Converted::Request(
        LeaveGroup {
            group: request.group_id,
            members,
        }
        .into(),
        Answering::LeaveGroup,
    )
}

pub(super) fn left(response: Response, version: i16) -> Message {
    let left = expect::<LeftGroup>(response).unwrap_or_else(|error| LeftGroup {
        error,
        members: Vec::new(),
    });
    // Before version 3 there is one member, whose error is the answer's.
    let of_member = left
        .members
        .first()
        .filter(|_| version < 3)
        .map(|(_, _, error)| *error);
    let member =
        |(member_id, group_instance_id, error): (Text, Option<Text>, ErrorCode)| MemberResponse {
            member_id,
            group_instance_id,
            error_code: error.number(),
        };
    Box::new(LeaveGroupResponse {
        error_code: of_member.unwrap_or(left.error).number(),
        members: left.members.into_iter().map(member).collect(),
        ..Default::default()
    })
}

/// Which groups a list shows; empty is any. Compared without case, as Kafka does.
pub(in crate::net::kafka) struct ListFilter {
    states: Vec<String>,
    types: Vec<String>,
}

/// All groups are of this type yet.
const GROUP_TYPE: &str = "classic";

pub(super) fn list(request: ListGroupsRequest) -> Converted {
    let lower = |texts: Vec<Text>| texts.iter().map(|t| t.to_lowercase()).collect();
    let filter = ListFilter {
        states: lower(request.states_filter),
        types: lower(request.types_filter),
    };
    Converted::Request(ListGroups.into(), Answering::ListGroups(filter))
}

pub(super) fn listed(response: Response, filter: &ListFilter) -> Message {
    let (groups, error) = match expect::<ListedGroups>(response) {
        Ok(listed) => (listed.groups, listed.error),
        Err(error) => (Vec::new(), error),
    };
    let wanted = |g: &GroupListing| {
        let has = |wanted: &[String], it: &str| wanted.is_empty() || wanted.iter().any(|w| w == it);
        has(&filter.states, &g.state.to_lowercase()) && has(&filter.types, GROUP_TYPE)
    };
    let group = |g: GroupListing| ListedGroup {
        group_id: g.group,
        protocol_type: g.protocol_type,
        group_state: g.state,
        group_type: Text::from_static(GROUP_TYPE),
    };
    Box::new(ListGroupsResponse {
        error_code: error.number(),
        groups: groups.into_iter().filter(wanted).map(group).collect(),
        ..Default::default()
    })
}

pub(super) fn describe(request: DescribeGroupsRequest) -> Converted {
    let describe = DescribeGroups {
        groups: request.groups,
    };
    let rights = request.include_authorized_operations;
    Converted::Request(describe.into(), Answering::DescribeGroups { rights })
}

/// From here on a group that is not there is an error (KIP-1043).
const NOT_FOUND_FROM_VERSION: i16 = 6;

pub(super) fn described(
    response: Response,
    version: i16,
    rights: bool,
    known: &dyn Known,
) -> Message {
    let groups = expect::<DescribedGroups>(response).map_or_else(|_| Vec::new(), |d| d.groups);
    let member = |m: MemberDescription| DescribedGroupMember {
        member_id: m.member,
        group_instance_id: m.instance,
        client_id: m.client_id,
        client_host: m.client_host,
        member_metadata: m.metadata.0,
        member_assignment: m.assignment.0,
    };
    let group = |g: GroupDescription| {
        let missing =
            g.error == ErrorCode::None && &*g.state == "Dead" && version >= NOT_FOUND_FROM_VERSION;
        let error = if missing {
            ErrorCode::GroupIdNotFound
        } else {
            g.error
        };
        let group = (error == ErrorCode::None).then_some(Resource::Group(&g.group));
        let authorized_operations = known.rights_if_asked(rights, group);
        DescribedGroup {
            authorized_operations,
            error_code: error.number(),
            error_message: missing.then(|| format!("Group {} not found.", g.group).into()),
            group_id: g.group,
            group_state: g.state,
            protocol_type: g.protocol_type,
            protocol_data: g.protocol,
            members: g.members.into_iter().map(member).collect(),
        }
    };
    Box::new(DescribeGroupsResponse {
        groups: groups.into_iter().map(group).collect(),
        ..Default::default()
    })
}

pub(super) fn delete(request: DeleteGroupsRequest) -> Converted {
    let delete = DeleteGroups {
        groups: request.groups_names,
    };
    Converted::Request(delete.into(), Answering::DeleteGroups)
}

pub(super) fn deleted(response: Response) -> Message {
    let groups = expect::<DeletedGroups>(response).map_or_else(|_| Vec::new(), |d| d.groups);
    let result = |(group_id, error): (Text, ErrorCode)| DeletableGroupResult {
        group_id,
        error_code: error.number(),
        ..Default::default()
    };
    Box::new(DeleteGroupsResponse {
        results: groups.into_iter().map(result).collect(),
        ..Default::default()
    })
}
