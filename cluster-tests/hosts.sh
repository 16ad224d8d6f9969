#!/usr/bin/env bash
# A cluster of callboard nodes on hosts of their own: one network namespace per node, a bridge between them in another
# one. Nothing of the machine's own network is touched. Needs root.
#
#   hosts.sh check                     whether this machine allows it
#   hosts.sh up DIR [NODES]            makes the hosts, 3 by default; certificates and data are below DIR
#   hosts.sh add DIR                   makes one more
#   hosts.sh start DIR NODE [ARG ...]  runs a node in the background with more arguments of `callboard start`
#   hosts.sh log DIR NODE              what it said
#   hosts.sh kill|pause|resume|stop DIR NODE
#   hosts.sh cut DIR NODE [OTHER ...]      nothing passes between them, both ways; all other nodes if none is named; OTHER may
#                                      be `client`
#   hosts.sh deafen DIR NODE [OTHER ...]   nothing of the others reaches it; what it says passes
#   hosts.sh mute DIR NODE [OTHER ...]     nothing of what it says reaches the others
#   hosts.sh lossy DIR NODE PERCENT    so many of a hundred packets that come to it are lost; needs nft
#   hosts.sh narrow DIR NODE KBIT      it sends no more than so many kilobits in a second
#   hosts.sh wire DIR NODE POLICY [SEED]   what passes to and from it is late, lost, doubled, reordered or damaged, as wire.py
#                                      says it: delay=50,jitter=50,loss=5,twice=10,early=25,rot=0.5
#   hosts.sh heal DIR                  everything passes again
#   hosts.sh disk DIR NODE MIB         gives a node that does not run a disk of its own of this size
#   hosts.sh run DIR COMMAND ...       runs something on the client's host, like: callboard cluster status
#   hosts.sh exec DIR NODE COMMAND ... runs something on a node's host
#   hosts.sh down DIR                  ends all nodes and removes the hosts; data stays
#
# Node N has the address 10.77.77.N, the client 10.77.77.100. BINARY names the program (default: target/release/callboard).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
BINARY=${BINARY:-$here/../target/release/callboard}
NOBODY=02:00:00:00:00:99

fail() { echo "hosts.sh: $*" >&2; exit 1; }
usage() { sed -n '2,29p' "${BASH_SOURCE[0]}" | sed 's/^# \{0,1\}//'; exit 2; }
[ $# -ge 1 ] || usage
action=$1; shift

if [ "$action" = check ]; then
  name=callboard-check-$$
  ip netns add "$name" 2>/dev/null || fail "network namespaces are not allowed here: it takes root"
  ip -n "$name" link add bridge type bridge 2>/dev/null && ip -n "$name" link add veth-a type veth peer name veth-b 2>/dev/null && made=1 || made=0
  ip netns del "$name"
  [ $made = 1 ] || fail "bridges or veth pairs are not allowed here"
  exit 0
fi

[ $# -ge 1 ] || usage
DIR=$1; shift
id_file=$DIR/hosts.id
if [ "$action" = up ]; then
  mkdir -p "$DIR"
  [ ! -e "$id_file" ] || fail "$DIR has hosts already: hosts.sh down $DIR"
  printf '%s' "$$" >"$id_file"
fi
[ -e "$id_file" ] || fail "$DIR has no hosts: hosts.sh up $DIR"
DIR=$(cd "$DIR" && pwd)
id=$(cat "$DIR/hosts.id")
space() { echo "callboard-$id-$1"; }
nodes() { local n=1; while ip netns list | grep -q "^$(space $n)\b"; do echo $n; n=$((n + 1)); done; }
within() { local n=$1; shift; ip netns exec "$(space "$n")" "$@"; }
pid() { cat "$DIR/node-$1.pid" 2>/dev/null || fail "node $1 was not started"; }
device() { if [ "$1" = client ]; then echo bridge; else echo eth0; fi; }
address() { if [ "$1" = client ]; then echo 10.77.77.100; else echo "10.77.77.$1"; fi; }
# Packets from one host to another go to an address that nobody has.
drop() { ip -n "$(space "$1")" neigh replace "$(address "$2")" lladdr $NOBODY dev "$(device "$1")" nud permanent; }
others() { local me=$1; shift; if [ $# -gt 0 ]; then echo "$@"; else nodes | grep -vx "$me"; fi; }

add_host() {
  local n=$1 link=v$1
  ip netns add "$(space "$n")"
  ip -n "$(space client)" link add "$link" type veth peer name eth0 netns "$(space "$n")"
  ip -n "$(space client)" link set "$link" master bridge up
  ip -n "$(space "$n")" addr add "10.77.77.$n/24" dev eth0
  ip -n "$(space "$n")" link set eth0 up
  ip -n "$(space "$n")" link set lo up
}

case $action in
up)
  ip netns add "$(space client)"
  ip -n "$(space client)" link set lo up
  # An address of its own: it would change with the ports.
  ip -n "$(space client)" link add bridge address 02:00:00:00:01:00 type bridge
  ip -n "$(space client)" addr add 10.77.77.100/24 dev bridge
  ip -n "$(space client)" link set bridge up
  for n in $(seq 1 "${1:-3}"); do add_host "$n"; done
  ;;
add)
  n=$(($(nodes | wc -l) + 1)); add_host $n; echo $n
  ;;
start)
  n=$1; shift
  authority=$DIR/authority
  [ -e "$authority" ] || "$BINARY" cert init --out "$authority" 2>/dev/null
  [ -e "$authority/node-$n" ] || "$BINARY" cert node "$n" --host "10.77.77.$n" --authority "$authority" 2>/dev/null
  voters=$(for v in 1 2 3; do printf '%s@10.77.77.%s:9392,' $v $v; done)
  address=10.77.77.$n
  within "$n" "$BINARY" start --data "$DIR/node-$n" --kafka "$address:9092" --quic "$address:9192" --http "$address:9292" \
    --peer "$address:9392" --set "node.id=$n" --set "cluster.certificates=$authority/node-$n" \
    --set "cluster.voters=${voters%,}" "$@" >"$DIR/node-$n.out" 2>>"$DIR/node-$n.log" </dev/null &
  echo $! >"$DIR/node-$n.pid"
  ;;
log) cat "$DIR/node-$1.log" ;;
kill) kill -KILL "$(pid "$1")" ;;
pause) kill -STOP "$(pid "$1")" ;;
resume) kill -CONT "$(pid "$1")" ;;
stop) kill -TERM "$(pid "$1")" ;;
cut)
  me=$1; shift
  for other in $(others "$me" "$@"); do drop "$me" "$other"; drop "$other" "$me"; done
  ;;
deafen)
  me=$1; shift
  for other in $(others "$me" "$@"); do drop "$other" "$me"; done
  ;;
mute)
  me=$1; shift
  for other in $(others "$me" "$@"); do drop "$me" "$other"; done
  ;;
lossy)
  command -v nft >/dev/null || fail "nft is not installed"
  within "$1" nft -f - <<RULES
table ip faults {
  chain incoming {
    type filter hook input priority 0;
    numgen random mod 100 < $2 drop
  }
}
RULES
  ;;
narrow) within "$1" tc qdisc replace dev eth0 root tbf rate "${2}kbit" burst 16kb latency 400ms ;;
wire)
  n=$1
  within "$n" python3 "$here/wire.py" plain eth0
  said=$DIR/wire-$n.log
  ip netns exec "$(space client)" python3 "$here/wire.py" carry "v$n" "w$n" "${3:-1}" "$2" >"$said" 2>&1 </dev/null &
  echo $! >"$DIR/wire-$n.pid"
  for _ in $(seq 100); do
    if grep -q carries "$said"; then exit 0; fi
    sleep 0.05
  done
  fail "no wire: $(cat "$said")"
  ;;
heal)
  for wire in "$DIR"/wire-*.pid; do
    if [ ! -e "$wire" ]; then continue; fi
    carries=$(cat "$wire")
    kill "$carries" 2>/dev/null || true
    for _ in $(seq 250); do
      if ! grep -qs '^State:.[^Z]' "/proc/$carries/status"; then break; fi
      sleep 0.02
    done
    # However it ended, its port is the bridge's again.
    n=${wire##*wire-}
    ip -n "$(space client)" link set "v${n%.pid}" master bridge
    rm -f "$wire"
  done
  ip -n "$(space client)" neigh flush dev bridge nud permanent
  for n in $(nodes); do
    ip -n "$(space "$n")" neigh flush dev eth0 nud permanent
    within "$n" nft delete table ip faults 2>/dev/null || true
    within "$n" tc qdisc del dev eth0 root 2>/dev/null || true
  done
  ;;
disk)
  mkdir -p "$DIR/node-$1"
  mount -t tmpfs -o "size=${2}m" tmpfs "$DIR/node-$1"
  ;;
run) BINARY_DIR=$(cd "$(dirname "$BINARY")" && pwd)
  PATH=$BINARY_DIR:$PATH CALLBOARD_PROFILE=${CALLBOARD_PROFILE:-$DIR/node-1/client.toml} within client "$@" ;;
exec) n=$1; shift; exec ip netns exec "$(space "$n")" "$@" ;;
down)
  for n in $(nodes) client; do
    # shellcheck disable=SC2046
    kill -KILL $(ip netns pids "$(space "$n")") 2>/dev/null || true
    ip netns del "$(space "$n")"
    if mountpoint -q "$DIR/node-$n"; then umount -l "$DIR/node-$n"; fi
  done
  rm -f "$DIR/hosts.id" "$DIR"/node-*.pid "$DIR"/wire-*.pid
  ;;
*) usage ;;
esac
