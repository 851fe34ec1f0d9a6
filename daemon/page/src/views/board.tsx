// How the board is: what `…/health` and `…/info` say.

import type { Device } from "../device/devices";
import { useApp } from "./context";

/** Keys of `…/health` that are shown with a name of their own, or elsewhere. */
const KNOWN = [
    "rss",
    "peak_rss",
    "memory_limit",
    "memory_pressure",
    "temperature",
    "throttled",
    "disk_free",
    "queue",
    "busy",
    "paused",
    "seconds_per_step",
    "undelivered",
    "problems",
];

function bytes(count: number): string {
    const [size, unit] = count < 1e9 ? [count / 2 ** 20, "MiB"] : [count / 2 ** 30, "GiB"];
    return `${size.toLocaleString(document.documentElement.lang, { maximumFractionDigits: size < 100 ? 1 : 0 })} ${unit}`;
}

export function Board({ device }: { device: Device }) {
    const { text } = useApp();
    const { health, info } = device;
    const rows: [string, string][] = [];
    const row = (name: string, value: string | undefined | null | false) => value && rows.push([name, value]);
    if (info) {
        row(text.board.model, `${info.model.name} (${info.model.family}, ${info.model.weights})`);
    }
    if (health) {
        const { rss, memory_limit: limit, temperature, throttled } = health;
        row(text.board.memory, rss !== null && (limit === null ? bytes(rss) : text.board.of(bytes(rss), bytes(limit))));
        const degrees = temperature === null ? undefined : `${temperature.toFixed(0)} °C`;
        row(text.board.temperature, [degrees, throttled && text.board.throttled].filter(Boolean).join(", "));
        row(text.board.step, health.seconds_per_step !== null && text.seconds(health.seconds_per_step));
        row(text.board.disk, health.disk_free !== null && bytes(health.disk_free));
        row(text.board.undelivered, health.undelivered > 0 && String(health.undelivered));
        const others = Object.entries(health).filter(([key]) => !KNOWN.includes(key));
        for (const [key, value] of others)
            row(key, typeof value === "number" || typeof value === "string" ? String(value) : undefined);
    }
    if (info) row(text.board.version, info.version);
    return (
        <section class="card board" aria-labelledby="board-title">
            <h2 id="board-title">
                {text.board.title} <span class="muted">{device.name}</span>
            </h2>
            {!health && <p class="muted">{text.board.unknown}</p>}
            <dl>
                {rows.map(([name, value]) => (
                    <div key={name}>
                        <dt>{name}</dt>
                        <dd>{value}</dd>
                    </div>
                ))}
            </dl>
        </section>
    );
}
