#!/usr/bin/env bash
# A SLURM of one node on this machine, for `make cluster-test`. Debian; asks for root. It keeps no accounts, so that there
# is no sacct: what a sweep needs to know of its jobs must come from squeue and scontrol.
#
#   cluster.sh start DIRECTORY    install what is missing, start the daemons, and wait until they answer
#   cluster.sh stop DIRECTORY     cancel what still runs there, and stop the daemons that `start` has started
#
# slurm.conf, states and logs lie in DIRECTORY, where SLURM_CONF=DIRECTORY/slurm.conf finds the cluster.
set -euo pipefail
what=${1:?start or stop} directory=$(realpath -m "${2:?a directory}")
export SLURM_CONF=$directory/slurm.conf PATH=$PATH:/usr/sbin

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo --preserve-env=SLURM_CONF "$@"; fi; }
has() { command -v "$1" >/dev/null; }

complain() {
  echo "cluster.sh: $*" >&2
  exit 1
}

runs() { # a process of this id and name; after a reboot the id may be another's
  [ "$(cat "/proc/$1/comm" 2>/dev/null)" = "$2" ] && ! grep -q '^State:.Z' "/proc/$1/status" 2>/dev/null
}

end() { # the daemon of this name, whose process id stands in our directory, and wait until it is gone
  local file=$directory/$1.pid pid
  pid=$(as_root cat "$file" 2>/dev/null) || return 0
  if runs "$pid" "$1"; then as_root kill "$pid" || true; fi
  for _ in $(seq 100); do
    if ! runs "$pid" "$1"; then
      as_root rm -f "$file"
      return
    fi
    sleep 0.1
  done
  complain "$1 (process $pid) does not end"
}

stop() {
  if [ -s "$directory/slurmctld.pid" ] && runs "$(as_root cat "$directory/slurmctld.pid")" slurmctld; then
    as_root scancel --partition=main >/dev/null 2>&1 || true
    for _ in $(seq 60); do # KillWait, and what a run takes to write its checkpoint
      if [ -z "$(squeue --noheader 2>/dev/null)" ]; then break; fi
      sleep 0.5
    done
  fi
  end slurmd
  end slurmctld
  end munged
}

if [ "$what" = stop ]; then
  stop
  exit
fi

if [ -e "$SLURM_CONF" ] && sinfo --noheader 2>/dev/null | grep -qE 'idle|mix|alloc'; then exit; fi
missing=()
for pair in slurmctld:slurmctld slurmd:slurmd srun:slurm-client munged:munge; do
  if ! has "${pair%:*}"; then missing+=("${pair#*:}"); fi
done
if [ "$(id -u)" -ne 0 ] && ! has sudo; then complain "asks for root, and there is no sudo"; fi
if [ ${#missing[@]} -gt 0 ]; then
  if ! has apt-get; then complain "missing, and to be installed by hand, for there is no apt-get: ${missing[*]}"; fi
  as_root apt-get install --yes --no-install-recommends "${missing[@]}" ||
    complain "apt-get cannot install ${missing[*]}; apt-get update may help"
fi
trap 'stop || true' ERR
mkdir -p "$directory/state" "$directory/spool"
memory=$(awk '/^MemTotal/ {megabytes = int($2 / 1024 * 0.9); print (megabytes < 8000 ? megabytes : 8000)}' /proc/meminfo)
cat >"$SLURM_CONF" <<CONF
ClusterName=loopback
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
# Seconds that a job that was put back waits before it starts again; 120 where nothing is said.
AuthInfo=cred_expire=5
StateSaveLocation=$directory/state
SlurmdSpoolDir=$directory/spool
SlurmctldPidFile=$directory/slurmctld.pid
SlurmdPidFile=$directory/slurmd.pid
SlurmctldLogFile=$directory/slurmctld.log
SlurmdLogFile=$directory/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
KillWait=10
ReturnToService=2
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$(nproc --all) RealMemory=$memory State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
if ! munge --no-input >/dev/null 2>&1; then
  as_root install -d -o munge -g munge /run/munge /var/log/munge
  as_root runuser -u munge -- /usr/sbin/munged
  as_root cat /run/munge/munged.pid >"$directory/munged.pid" # ours, so that `stop` ends it
fi
as_root "$(command -v slurmctld)" -f "$SLURM_CONF"
as_root "$(command -v slurmd)" -f "$SLURM_CONF"
for _ in $(seq 60); do
  if sinfo --noheader 2>/dev/null | grep -q idle; then exit; fi
  sleep 0.5
done
stop
complain "SLURM does not answer; read $directory/slurmctld.log and slurmd.log"
