// The whole page: what is above, the form on one side, what the device does and has painted on the other.

import { useEffect, useReducer } from "preact/hooks";
import type { App } from "../app";
import { Banner } from "./banner";
import { Board } from "./board";
import { AppContext } from "./context";
import { Form } from "./form";
import { Gallery } from "./gallery";
import { Header } from "./header";
import { MaskEditor } from "./mask";
import { Now } from "./now";
import { PictureView } from "./picture";
import { Queue } from "./queue";
import { Setup } from "./setup";

export function Page({ app }: { app: App }) {
    const [, redraw] = useReducer((n: number) => n + 1, 0);
    useEffect(() => app.listen(() => redraw(undefined)), [app]);
    const { language, theme } = app.preferences;
    useEffect(() => {
        document.documentElement.lang = language;
        document.documentElement.dataset.theme = theme;
    }, [language, theme]);
    const { text, open, device } = app;
    return (
        <AppContext.Provider value={app}>
            <a class="skip" href="#prompt">
                {text.skip}
            </a>
            <Header />
            <Banner />
            <main>
                <Form />
                <div class="side">
                    <Now />
                    <Queue />
                </div>
                <Gallery />
                {device && <Board device={device} />}
            </main>
            {open?.is === "picture" && <PictureView id={open.key} />}
            {open?.is === "mask" && <MaskEditor />}
            {open?.is === "setup" && <Setup />}
        </AppContext.Provider>
    );
}
