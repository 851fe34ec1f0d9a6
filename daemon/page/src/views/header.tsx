// The device that is looked at, whether the broker is there, and the settings.

import { useApp } from "./context";

export function Header() {
    const app = useApp();
    const { text, link, device } = app;
    const all = [...app.devices.all.values()].sort((a, b) => a.name.localeCompare(b.name));
    const words = { off: text.link.down, connecting: text.link.connecting, up: text.link.up, down: text.link.down };
    const name = (one: { name: string; online: boolean }) =>
        `${one.name} · ${one.online ? text.devices.online : text.devices.offline}`;
    return (
        <header>
            <h1>diffused</h1>
            {all.length > 1 && (
                <select
                    class="devices"
                    aria-label={text.devices.title}
                    value={device?.name}
                    onChange={(event) => app.prefer({ device: event.currentTarget.value })}
                >
                    {all.map((one) => (
                        <option key={one.name} value={one.name}>
                            {name(one)}
                        </option>
                    ))}
                </select>
            )}
            {all.length === 1 && device && (
                <p class="devices" aria-label={text.devices.title} role="group">
                    {name(device)}
                </p>
            )}
            <p class={`link ${link.is}`} role="status">
                <span class="dot" aria-hidden="true" />
                <span class="words">{words[link.is]}</span>
            </p>
            <button
                type="button"
                class="plain"
                aria-label={text.settings}
                title={text.settings}
                onClick={() => {
                    app.open = { is: "setup" };
                    app.changed();
                }}
            >
                <svg viewBox="0 0 24 24" aria-hidden="true">
                    <path d="M4 7h9M19 7h1M4 17h1M11 17h9" />
                    <circle cx="16" cy="7" r="3" />
                    <circle cx="8" cy="17" r="3" />
                </svg>
            </button>
        </header>
    );
}
