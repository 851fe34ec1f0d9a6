// The pictures that were painted since the page was opened.

import { useApp } from "./context";

export function Gallery() {
    const app = useApp();
    const { text, devices } = app;
    const { pictures } = devices;
    return (
        <section class="gallery" aria-labelledby="pictures-title">
            <div class="top">
                <h2 id="pictures-title">{text.pictures.title}</h2>
                {pictures.length > 0 && <span class="muted">{text.pictures.count(pictures.length)}</span>}
            </div>
            {pictures.length === 0 && <p class="empty muted">{text.pictures.empty}</p>}
            <ul>
                {pictures.map((picture) => {
                    const prompt = String(
                        picture.parameters?.prompt || picture.request?.prompt || text.pictures.untitled,
                    );
                    return (
                        <li key={picture.key}>
                            <button
                                type="button"
                                class="picture"
                                aria-label={text.pictures.open(prompt)}
                                onClick={() => {
                                    app.open = { is: "picture", key: picture.key };
                                    app.changed();
                                }}
                            >
                                <img src={picture.url} alt="" loading="lazy" />
                                <span>{prompt}</span>
                            </button>
                        </li>
                    );
                })}
            </ul>
        </section>
    );
}
