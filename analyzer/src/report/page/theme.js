try { const t = localStorage.getItem("foreshadow-theme"); if (t === "light" || t === "dark") document.documentElement.dataset.theme = t; } catch { /* storage is switched off */ }
