// What keeps the page from its work, in words, with what to do.

import { useApp, useTick } from "./context";

export function Banner() {
    const app = useApp();
    const { text, link, device, denied } = app;
    const retryAt = link.is === "down" ? link.retryAt : undefined;
    useTick(retryAt === undefined ? undefined : 1000);
    const trouble = link.is === "down" || link.is === "connecting" ? link.trouble : undefined;
    if (trouble) {
        const seconds = retryAt === undefined ? undefined : Math.max(1, Math.ceil((retryAt - Date.now()) / 1000));
        return (
            <section class="banner bad" aria-label={text.link.down}>
                <p role="alert">{text.trouble(trouble, app.preferences.url)}</p>
                <p class="actions">
                    {seconds !== undefined && <span class="muted">{text.link.again(seconds)}</span>}
                    {link.is === "down" && (
                        <button type="button" onClick={app.retry}>
                            {text.link.now}
                        </button>
                    )}
                    <button
                        type="button"
                        onClick={() => {
                            app.open = { is: "setup" };
                            app.changed();
                        }}
                    >
                        {text.settings}
                    </button>
                </p>
            </section>
        );
    }
    const problems = device?.health?.problems ?? [];
    if (link.is === "up" && denied.length > 0) {
        return (
            <p class="banner bad" role="alert">
                {text.link.denied(denied.join(", "))}
            </p>
        );
    }
    if (link.is === "up" && device && !device.online)
        return (
            <p class="banner" role="status">
                {text.devices.isOffline(device.name)}
            </p>
        );
    if (problems.length > 0) {
        return (
            <section class="banner bad" aria-label={text.board.problems}>
                {problems.map((problem) => (
                    <p key={problem}>{problem}</p>
                ))}
            </section>
        );
    }
    return null;
}
