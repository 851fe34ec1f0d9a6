// The broker, the language, the colours.

import { useState } from "preact/hooks";
import type { Preferences } from "../app";
import { LANGUAGES } from "../text";
import { useApp } from "./context";
import { Dialog } from "./dialog";

export function Setup() {
    const app = useApp();
    const { text } = app;
    const [draft, setDraft] = useState(app.preferences);
    const input = (key: "url" | "username" | "password" | "base", hint?: string) => (
        <div class="field">
            <label for={`setup-${key}`}>{text.setup[key]}</label>
            <input
                id={`setup-${key}`}
                type={(key === "password" || key === "url" ? key : "text") as "text"}
                value={draft[key]}
                required={key === "url" || key === "base"}
                autocapitalize="none"
                autocomplete={key === "password" ? "current-password" : key === "username" ? "username" : "off"}
                spellcheck={false}
                aria-describedby={hint && `setup-${key}-hint`}
                onInput={(event) => setDraft({ ...draft, [key]: event.currentTarget.value })}
            />
            {hint && (
                <p class="hint" id={`setup-${key}-hint`}>
                    {hint}
                </p>
            )}
        </div>
    );
    return (
        <Dialog title={text.setup.title}>
            <form
                class="setup"
                onSubmit={(event) => {
                    event.preventDefault();
                    const { url, username, password, base, remember } = draft;
                    app.prefer({
                        url: url.trim(),
                        username,
                        password,
                        remember,
                        base: base.trim().replace(/\/+$/, ""),
                    });
                    app.open = undefined;
                    app.connect();
                }}
            >
                <p class="muted">{text.setup.about}</p>
                {input("url")}
                <div class="row">
                    {input("username", text.setup.optional)}
                    {input("password", text.setup.optional)}
                </div>
                <label class="check">
                    <input
                        type="checkbox"
                        checked={draft.remember}
                        onChange={(event) => setDraft({ ...draft, remember: event.currentTarget.checked })}
                    />
                    {text.setup.remember}
                </label>
                {input("base")}
                <button class="main" type="submit">
                    {text.setup.connect}
                </button>
            </form>
            <div class="row">
                <div class="field">
                    <label for="language">{text.languageLabel}</label>
                    <select
                        id="language"
                        value={app.preferences.language}
                        onChange={(event) => app.prefer({ language: event.currentTarget.value })}
                    >
                        {Object.entries(LANGUAGES).map(([tag, one]) => (
                            <option key={tag} value={tag} lang={tag}>
                                {one.language}
                            </option>
                        ))}
                    </select>
                </div>
                <div class="field">
                    <label for="theme">{text.theme}</label>
                    <select
                        id="theme"
                        value={app.preferences.theme}
                        onChange={(event) => app.prefer({ theme: event.currentTarget.value as Preferences["theme"] })}
                    >
                        {Object.entries(text.themes).map(([key, name]) => (
                            <option key={key} value={key}>
                                {name}
                            </option>
                        ))}
                    </select>
                </div>
            </div>
        </Dialog>
    );
}
