//! The Engine API's objects with the names and types Go gives their fields, so that templates see what docker's see.
//!
//! A line describes a struct: `NAME GoName[=JsonName]:TYPE[!] …`, where `!` is `omitempty` and a type is `s` text, `i` integer,
//! `f` float, `b` boolean, `t` time, `e` the empty struct, `?` anything, `[T]` a slice, `{T}` a map, `*T` a pointer, or a struct's
//! name. Source: Engine API v1.51, and moby's api/types for the Go names that differ from it.

use crate::value::{Field, Map, Record, Value};

const STRUCTS: &str = "\
container.InspectResponse ID=Id:s Created:s Path:s Args:[s] State:*container.State Image:s ResolvConfPath:s HostnamePath:s HostsPath:s LogPath:s Name:s RestartCount:i Driver:s Platform:s MountLabel:s ProcessLabel:s AppArmorProfile:s ExecIDs:[s] HostConfig:*container.HostConfig GraphDriver:storage.DriverData SizeRw:*i! SizeRootFs:*i! Mounts:[container.MountPoint] Config:*container.Config NetworkSettings:*container.NetworkSettings ImageManifestDescriptor:*?!
container.State Status:s Running:b Paused:b Restarting:b OOMKilled:b Dead:b Pid:i ExitCode:i Error:s StartedAt:s FinishedAt:s Health:*container.Health!
container.Health Status:s FailingStreak:i Log:[container.HealthcheckResult]
container.HealthcheckResult Start:t End:t ExitCode:i Output:s
storage.DriverData Data:{s} Name:s
container.MountPoint Type:s! Name:s! Source:s Destination:s Driver:s! Mode:s RW:b Propagation:s
container.Config Hostname:s Domainname:s User:s AttachStdin:b AttachStdout:b AttachStderr:b ExposedPorts:{e}! Tty:b OpenStdin:b StdinOnce:b Env:[s] Cmd:[s] Healthcheck:*v1.HealthcheckConfig! ArgsEscaped:b! Image:s Volumes:{e} WorkingDir:s Entrypoint:[s] NetworkDisabled:b! MacAddress:s! OnBuild:[s] Labels:{s} StopSignal:s! StopTimeout:*i! Shell:[s]!
v1.HealthcheckConfig Test:[s]! Interval:i! Timeout:i! StartPeriod:i! StartInterval:i! Retries:i!
container.HostConfig Binds:[s] ContainerIDFile:s LogConfig:container.LogConfig NetworkMode:s PortBindings:{[nat.PortBinding]} RestartPolicy:container.RestartPolicy AutoRemove:b VolumeDriver:s VolumesFrom:[s] ConsoleSize:[i] Annotations:{s}! CapAdd:[s] CapDrop:[s] CgroupnsMode:s DNS=Dns:[s] DNSOptions=DnsOptions:[s] DNSSearch=DnsSearch:[s] ExtraHosts:[s] GroupAdd:[s] IpcMode:s Cgroup:s Links:[s] OomScoreAdj:i PidMode:s Privileged:b PublishAllPorts:b ReadonlyRootfs:b SecurityOpt:[s] StorageOpt:{s}! Tmpfs:{s}! UTSMode:s UsernsMode:s ShmSize:i Sysctls:{s}! Runtime:s! Isolation:s CPUShares=CpuShares:i Memory:i NanoCPUs=NanoCpus:i CgroupParent:s BlkioWeight:i BlkioWeightDevice:[blkiodev.WeightDevice] BlkioDeviceReadBps:[blkiodev.ThrottleDevice] BlkioDeviceWriteBps:[blkiodev.ThrottleDevice] BlkioDeviceReadIOps:[blkiodev.ThrottleDevice] BlkioDeviceWriteIOps:[blkiodev.ThrottleDevice] CPUPeriod=CpuPeriod:i CPUQuota=CpuQuota:i CPURealtimePeriod=CpuRealtimePeriod:i CPURealtimeRuntime=CpuRealtimeRuntime:i CpusetCpus:s CpusetMems:s Devices:[container.DeviceMapping] DeviceCgroupRules:[s] DeviceRequests:[container.DeviceRequest] KernelMemory:i! KernelMemoryTCP:i! MemoryReservation:i MemorySwap:i MemorySwappiness:*i OomKillDisable:*b PidsLimit:*i Ulimits:[container.Ulimit] CPUCount=CpuCount:i CPUPercent=CpuPercent:i IOMaximumIOps:i IOMaximumBandwidth:i Mounts:[mount.Mount]! MaskedPaths:[s] ReadonlyPaths:[s] Init:*b!
container.LogConfig Type:s Config:{s}
container.RestartPolicy Name:s MaximumRetryCount:i
nat.PortBinding HostIP=HostIp:s HostPort:s
blkiodev.WeightDevice Path:s Weight:i
blkiodev.ThrottleDevice Path:s Rate:i
container.DeviceMapping PathOnHost:s PathInContainer:s CgroupPermissions:s
container.DeviceRequest Driver:s Count:i DeviceIDs:[s] Capabilities:[[s]] Options:{s}
container.Ulimit Name:s Hard:i Soft:i
mount.Mount Type:s! Source:s! Target:s! ReadOnly:b! Consistency:s! BindOptions:*mount.BindOptions! VolumeOptions:*mount.VolumeOptions! ImageOptions:*mount.ImageOptions! TmpfsOptions:*mount.TmpfsOptions! ClusterOptions:*e!
mount.BindOptions Propagation:s! NonRecursive:b! CreateMountpoint:b! ReadOnlyNonRecursive:b! ReadOnlyForceRecursive:b!
mount.VolumeOptions NoCopy:b! Labels:{s}! Subpath:s! DriverConfig:*mount.Driver!
mount.Driver Name:s! Options:{s}!
mount.ImageOptions Subpath:s!
mount.TmpfsOptions SizeBytes:i! Mode:i! Options:[[s]]!
container.NetworkSettings Bridge:s SandboxID:s SandboxKey:s Ports:{[nat.PortBinding]} HairpinMode:b LinkLocalIPv6Address:s LinkLocalIPv6PrefixLen:i SecondaryIPAddresses:[?] SecondaryIPv6Addresses:[?] EndpointID:s Gateway:s GlobalIPv6Address:s GlobalIPv6PrefixLen:i IPAddress:s IPPrefixLen:i IPv6Gateway:s MacAddress:s Networks:{*network.EndpointSettings}
network.EndpointSettings IPAMConfig:*network.EndpointIPAMConfig Links:[s] Aliases:[s] MacAddress:s DriverOpts:{s} GwPriority:i NetworkID:s EndpointID:s Gateway:s IPAddress:s IPPrefixLen:i IPv6Gateway:s GlobalIPv6Address:s GlobalIPv6PrefixLen:i DNSNames:[s]
network.EndpointIPAMConfig IPv4Address:s! IPv6Address:s! LinkLocalIPs:[s]!
image.InspectResponse ID=Id:s RepoTags:[s] RepoDigests:[s] Parent:s Comment:s Created:s! Container:s! ContainerConfig:*?! DockerVersion:s Author:s Config:*v1.DockerOCIImageConfig Architecture:s Variant:s! Os:s OsVersion:s! Size:i VirtualSize:i! GraphDriver:storage.DriverData RootFS:image.RootFS Metadata:image.Metadata Descriptor:*?! Manifests:[?]!
v1.DockerOCIImageConfig User:s! ExposedPorts:{e}! Env:[s]! Entrypoint:[s]! Cmd:[s]! Volumes:{e}! WorkingDir:s! Labels:{s}! StopSignal:s! ArgsEscaped:b! Healthcheck:*v1.HealthcheckConfig! OnBuild:[s]! Shell:[s]!
image.RootFS Type:s! Layers:[s]!
image.Metadata LastTagTime:t!
network.Inspect Name:s ID=Id:s Created:t Scope:s Driver:s EnableIPv4:b EnableIPv6:b IPAM:network.IPAM Internal:b Attachable:b Ingress:b ConfigFrom:network.ConfigReference ConfigOnly:b Containers:{network.EndpointResource} Options:{s} Labels:{s} Peers:[?]! Services:{?}!
network.IPAM Driver:s Options:{s} Config:[network.IPAMConfig]
network.IPAMConfig Subnet:s! IPRange:s! Gateway:s! AuxAddress=AuxiliaryAddresses:{s}!
network.ConfigReference Network:s
network.EndpointResource Name:s EndpointID:s MacAddress:s IPv4Address:s IPv6Address:s
volume.Volume ClusterVolume:*?! CreatedAt:s! Driver:s Labels:{s} Mountpoint:s Name:s Options:{s} Scope:s Status:{?}! UsageData:*volume.UsageData!
volume.UsageData RefCount:i Size:i
events.Message Status=status:s! ID=id:s! From=from:s! Type:s Action:s Actor:events.Actor Scope=scope:s! Time=time:i! TimeNano=timeNano:i!
events.Actor ID:s Attributes:{s}
system.dockerInfo ID:s Containers:i ContainersRunning:i ContainersPaused:i ContainersStopped:i Images:i Driver:s DriverStatus:[[s]] SystemStatus:[[s]]! Plugins:system.PluginsInfo MemoryLimit:b SwapLimit:b KernelMemory:b! KernelMemoryTCP:b! CPUCfsPeriod=CpuCfsPeriod:b CPUCfsQuota=CpuCfsQuota:b CPUShares:b CPUSet:b PidsLimit:b IPv4Forwarding:b BridgeNfIptables:b BridgeNfIP6tables=BridgeNfIp6tables:b Debug:b NFd:i OomKillDisable:b NGoroutines:i SystemTime:s LoggingDriver:s CgroupDriver:s CgroupVersion:s! NEventsListener:i KernelVersion:s OperatingSystem:s OSVersion:s OSType:s Architecture:s IndexServerAddress:s RegistryConfig:*system.ServiceConfig NCPU:i MemTotal:i GenericResources:[?] DockerRootDir:s HTTPProxy=HttpProxy:s HTTPSProxy=HttpsProxy:s NoProxy:s Name:s Labels:[s] ExperimentalBuild:b ServerVersion:s Runtimes:{system.RuntimeWithStatus} DefaultRuntime:s Swarm:? LiveRestoreEnabled:b Isolation:s InitBinary:s ContainerdCommit:system.Commit RuncCommit:system.Commit InitCommit:system.Commit SecurityOptions:[s] ProductLicense:s! DefaultAddressPools:[system.NetworkAddressPool]! FirewallBackend:*?! CDISpecDirs:[s] DiscoveredDevices:[?]! Containerd:*?! Warnings:[s] ServerErrors:[s]! ClientInfo:?
system.PluginsInfo Volume:[s] Network:[s] Authorization:[s] Log:[s]
system.ServiceConfig AllowNondistributableArtifactsCIDRs:[s]! AllowNondistributableArtifactsHostnames:[s]! InsecureRegistryCIDRs:[s] IndexConfigs:{*system.IndexInfo} Mirrors:[s]
system.IndexInfo Name:s Mirrors:[s] Secure:b Official:b
system.RuntimeWithStatus Path=path:s! Args=runtimeArgs:[s]! Type=runtimeType:s! Options=options:{?}! Status=status:{s}!
system.Commit ID:s Expected:s!
system.NetworkAddressPool Base:s Size:i
system.versionInfo Client:system.clientVersion Server:*system.serverVersion
system.clientVersion Platform:*system.platform! Version:s APIVersion=ApiVersion:s DefaultAPIVersion=DefaultAPIVersion:s! GitCommit:s GoVersion:s Os:s Arch:s BuildTime:s! Context:s
system.serverVersion Platform:system.platform! Components:[system.component]! Version:s APIVersion=ApiVersion:s MinAPIVersion:s! GitCommit:s GoVersion:s Os:s Arch:s KernelVersion:s! Experimental:b! BuildTime:s!
system.platform Name:s
system.component Name:s Version:s Details:{s}!
";

/// Reads `value` as the struct `name`.
pub fn typed(name: &str, value: &Value) -> Value {
    let Some(line) = STRUCTS.lines().find(|line| line.split(' ').next() == Some(name)) else {
        return value.clone();
    };
    let mut words = line.split(' ');
    let type_name = match words.next().unwrap_or_default() {
        "events.Message" => "*events.Message",
        "system.serverVersion" => "*types.Version",
        name => name,
    };
    let fields = words.map(|word| field(word, value)).collect();
    Record { type_name, fields, ..Record::default() }.into()
}

fn field(word: &'static str, value: &Value) -> Field {
    let (names, kind) = word.split_once(':').unwrap_or((word, "?"));
    let (name, json) = names.split_once('=').unwrap_or((names, names));
    let (kind, omit_empty) = kind.strip_suffix('!').map_or((kind, false), |kind| (kind, true));
    Field { name, json, omit_empty, value: convert(kind, value.at(json)) }
}

fn convert(kind: &str, value: &Value) -> Value {
    if let Some(inner) = kind.strip_prefix('*') {
        return if *value == Value::Nil { Value::Nil } else { convert(inner, value) };
    }
    if let Some(inner) = kind.strip_prefix('[').and_then(|kind| kind.strip_suffix(']')) {
        return match value {
            Value::List(items) => {
                Value::List(items.iter().map(|item| convert(inner, item)).collect())
            }
            _ => Value::NilList,
        };
    }
    if let Some(inner) = kind.strip_prefix('{').and_then(|kind| kind.strip_suffix('}')) {
        return match value {
            Value::Map(map) => Value::Map(Map {
                of_text: inner == "s",
                entries: map
                    .entries
                    .iter()
                    .map(|(key, value)| (key.clone(), convert(inner, value)))
                    .collect(),
            }),
            _ => Value::NilMap,
        };
    }
    match (kind, value) {
        ("s", Value::Nil) => Value::Text(String::new()),
        ("i", Value::Nil) => Value::Int(0),
        ("f", Value::Nil) => Value::Float(0.0),
        ("b", Value::Nil) => Value::Bool(false),
        ("t", Value::Text(text)) => Value::Time(text.clone()),
        ("t", _) => Value::Time("0001-01-01T00:00:00Z".into()),
        ("e", _) => Value::Record(Record { type_name: "struct {}", ..Record::default() }.into()),
        ("s" | "i" | "f" | "b" | "?", value) => value.clone(),
        (name, value) => typed(name, value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_their_go_names_and_zero_values() {
        let raw: Value = serde_json::from_str(
            r#"{"Id":"x","Config":{"Env":["A=1"],"ExposedPorts":{"80/tcp":{}}}}"#,
        )
        .unwrap();
        let Value::Record(container) = typed("container.InspectResponse", &raw) else {
            panic!("no record")
        };
        assert_eq!(container.get("ID"), Some(&Value::Text("x".into())));
        assert_eq!(container.get("RestartCount"), Some(&Value::Int(0)));
        assert_eq!(container.get("State"), Some(&Value::Nil));
        let Some(Value::Record(config)) = container.get("Config") else { panic!("no config") };
        assert_eq!(config.get("ExposedPorts").unwrap().print(), "map[80/tcp:{}]");
        assert_eq!(config.get("MacAddress"), Some(&Value::Text(String::new())));
    }
}
