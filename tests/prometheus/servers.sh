# shellcheck shell=bash
# A node exporter and a Prometheus server on free ports of the loopback, in a temporary folder, and
# queries to the server. Sourced by `run`, never run.
# shellcheck disable=SC2154  # tools and contrib are set by run

pids=()
folder=$(mktemp -d)
trap stop_servers EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# stop_servers: ends both servers and removes the folder.
stop_servers() {
    local status=$?
    trap '' INT TERM HUP
    if [ ${#pids[@]} -gt 0 ]; then
        kill -KILL "${pids[@]}" 2>/dev/null || true
        wait "${pids[@]}" 2>/dev/null || true
    fi
    rm -rf "$folder"
    exit "$status"
}

# start NAME PROGRAM ARGUMENT...: runs a server in the background, and sets `address` once the server
# has logged where it listens. The server dies with this script, also if that is killed.
start() {
    local log=$folder/$1.log
    : >"$log"
    setpriv --pdeathsig KILL "${@:2}" >"$log" 2>&1 &
    pids+=($!)
    local deadline=$((SECONDS + 15))
    until address=$(grep -m 1 -o 'Listening on.* address=[0-9.:]*' "$log"); do
        if ! kill -0 $! 2>/dev/null || [ $SECONDS -ge $deadline ]; then
            tail -n 5 "$log" >&2
            die "$1 doesn't listen"
        fi
        sleep 0.1
    done
    address=${address##*=}
}

# start_node_exporter FOLDER: serves the text files in FOLDER, and nothing else.
start_node_exporter() {
    start node-exporter "$tools/prometheus-node-exporter" --web.listen-address=127.0.0.1:0 \
        --web.disable-exporter-metrics --collector.disable-defaults --collector.textfile \
        --collector.textfile.directory="$1"
}

# start_prometheus JOB ADDRESS PATH: scrapes http://ADDRESS/PATH each second, evaluates the rules as
# often, and sets `api`. By default, a server waits 5 s before its first scrape.
start_prometheus() {
    cat >"$folder/prometheus.yml" <<END
global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
rule_files: ["$contrib/memctl.rules.yml"]
scrape_configs:
  - job_name: "$1"
    metrics_path: "$3"
    static_configs: [{targets: ["$2"]}]
END
    start prometheus "$tools/prometheus" --config.file="$folder/prometheus.yml" \
        --storage.tsdb.path="$folder/storage" --web.listen-address=127.0.0.1:0 \
        --scrape.discovery-reload-interval=200ms
    api=http://$address/api/v1
    local deadline=$((SECONDS + 15))
    until curl --noproxy '*' -fs "http://$address/-/ready" >/dev/null; do
        [ $SECONDS -lt $deadline ] || die "prometheus isn't ready"
        sleep 0.1
    done
}

# ask PATH [OPTION...]: prints the data of an answer of the API. Fails with the server's words.
ask() {
    local answer
    answer=$(curl --noproxy '*' -sS --max-time 5 -G "${@:2}" "$api/$1") || return
    if ! jq -ce 'if .status == "success" then .data else null end' <<<"$answer"; then
        say "$(jq -r .error <<<"$answer")"
        return 1
    fi
}

# query EXPRESSION: prints a JSON list of the samples of an expression.
query() {
    local data
    data=$(ask query --data-urlencode "query=$1") && jq -c .result <<<"$data"
}
