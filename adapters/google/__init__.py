"""Google's generateContent format, shared by the Gemini API and Vertex AI; the two differ in URLs and a few fields."""
